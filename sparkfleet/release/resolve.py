"""What is behind the names today: a tag's digest from the registry, a repository's commit and files from the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from sparkfleet.catalog.catalog import Catalog, Image
from sparkfleet.errors import LockError
from sparkfleet.release.lockfile import LockedFile, LockedImage, LockedRepo, Platform
from sparkfleet.release.registry import INDEX_TYPES, Registry

TIMEOUT_S = 30
# What a Spark is, and what the lab's machine may be.
ARCHITECTURES = ("arm64", "amd64")


def resolve_repo(repo: str, revision: str | None, endpoint: str | None) -> LockedRepo:
    """Ask the Hub for a repository's commit and its files with sizes and hashes.

    HF_TOKEN from the environment is used for private and gated repositories. Raises LockError.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint)
    try:
        commit = api.model_info(repo, revision=revision, timeout=TIMEOUT_S).sha
        rows = list(api.list_repo_tree(repo, revision=commit, recursive=True, expand=False))
    except Exception as error:  # the client raises a wide and changing set of errors; each means «not resolved»
        raise _unresolved(repo, revision, error) from None
    files = [
        LockedFile(
            path=row.path,
            size=row.size,
            sha256=row.lfs.sha256 if row.lfs else None,
            git_blob_sha1=None if row.lfs else row.blob_id,
        )
        for row in rows
        if isinstance(row, RepoFile)
    ]
    return LockedRepo(commit=str(commit), files=sorted(files, key=lambda file: file.path))


def hub_commit(repo: str, endpoint: str | None) -> str:
    """Ask the Hub which commit a repository's main branch is. Raises LockError."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi(endpoint=endpoint).model_info(repo, timeout=TIMEOUT_S).sha)
    except Exception as error:  # as above
        raise _unresolved(repo, None, error) from None


def _unresolved(repo: str, revision: str | None, error: Exception) -> LockError:
    said = str(error).strip().split("\n")[0][:200]
    return LockError(
        f"the Hub did not resolve {repo} at {revision or 'main'}: {type(error).__name__}: {said}",
        "a repository that this machine may read",
        "check the name, the network and, for gated repositories, HF_TOKEN in the environment",
    )


def resolve_image(tag: str, image: Image, mirrors: Mapping[str, str]) -> LockedImage:
    """Ask the registry which digest the tag is, and for each architecture's manifest. Raises LockError."""
    registry = Registry.of(image.repository, mirrors)
    name = image.digest or image.registry_tag or tag
    digest, document = registry.manifest(name)
    try:
        platforms = dict(_platforms(registry, digest, document, image))
        named = image.registry_tag or tag
        return LockedImage(repository=image.repository, registry_tag=named, digest=digest, platforms=platforms)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise LockError(
            f"{image.repository}:{name} is described by no manifest that can be read: {type(error).__name__} {error}",
            "an OCI or Docker image, or an index of images",
            "check the tag in catalog/images.yaml; an artefact that is no image cannot be served",
        ) from None


def _platforms(
    registry: Registry, digest: str, document: Mapping[str, Any], image: Image
) -> Iterator[tuple[str, Platform]]:
    """Yield what is locked of each architecture. A registry does not report how much the layers unpack to."""
    if document.get("mediaType") not in INDEX_TYPES and "manifests" not in document:
        config = registry.config(document)
        yield config["architecture"], _platform(digest, document, config, image)
        return
    seen = []
    for row in document["manifests"]:
        platform = row.get("platform") or {}
        seen.append(f"{platform.get('os')}/{platform.get('architecture')}")
        if platform.get("os") == "linux" and platform.get("architecture") in ARCHITECTURES:
            _, manifest = registry.manifest(row["digest"])
            yield platform["architecture"], _platform(row["digest"], manifest, registry.config(manifest), image)
    if not any(f"linux/{architecture}" in seen for architecture in ARCHITECTURES):
        raise LockError(
            f"the image {registry.path} is there for {', '.join(seen) or 'nothing'} only",
            " or ".join(f"linux/{architecture}" for architecture in ARCHITECTURES),
            "choose a tag that was built for the hosts' architecture",
        )


def _platform(digest: str, manifest: Mapping[str, Any], config: Mapping[str, Any], image: Image) -> Platform:
    return Platform(
        manifest_digest=digest,
        config_digest=manifest["config"]["digest"],
        unpacked_bytes=image.unpacked_bytes,
        containerd_bytes=image.containerd_bytes,
        compressed_bytes=sum(layer["size"] for layer in manifest["layers"]),
        entrypoint=(config.get("config") or {}).get("Entrypoint"),
    )


def images_to_lock(catalog: Catalog, tags: list[str]) -> list[str]:
    """Return the tags with the ones they roll back to, so that a lock always names the way back."""
    wanted: list[str] = []
    for tag in tags:
        image = catalog.images.get(tag)
        wanted += [name for name in (tag, image.rollback_to if image else None) if name and name not in wanted]
    return wanted
