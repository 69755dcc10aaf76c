"""What is behind the names today: a tag's digest from the registry, a repository's commit and files from the Hub."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from sparkfleet import images
from sparkfleet.catalog import Catalog, Image
from sparkfleet.errors import LockError
from sparkfleet.lock import LockedFile, LockedImage, LockedRepo, Platform

TIMEOUT_S = 30
INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
# Where the API of docker.io answers.
DOCKER_HUB_API = "registry-1.docker.io"


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
        said = str(error).strip().split("\n")[0][:200]
        raise LockError(
            f"the Hub did not resolve {repo} at {revision or 'main'}: {type(error).__name__}: {said}",
            "a repository that this machine may read",
            "check the name, the network and, for gated repositories, HF_TOKEN in the environment",
        ) from None
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


def resolve_image(tag: str, image: Image, mirrors: Mapping[str, str]) -> LockedImage:
    """Ask the registry which digest the tag is, and for each architecture's manifest. Raises LockError."""
    registry = Registry.of(image.repository, mirrors)
    name = image.digest or image.registry_tag or tag
    digest, document = registry.manifest(name)
    platforms: dict[str, Platform] = {}
    if document.get("mediaType") in INDEX_TYPES or "manifests" in document:
        for row in document["manifests"]:
            platform = row.get("platform") or {}
            if platform.get("os") == "linux" and platform.get("architecture") in ("arm64", "amd64"):
                _, manifest = registry.manifest(row["digest"])
                platforms[platform["architecture"]] = registry.platform(row["digest"], manifest, image.unpacked_bytes)
    else:
        config = registry.config(document)
        platforms[config["architecture"]] = registry.platform(digest, document, image.unpacked_bytes)
    named = image.registry_tag or tag
    return LockedImage(repository=image.repository, registry_tag=named, digest=digest, platforms=platforms)


class Registry:
    """The part of the OCI distribution API that resolving needs.

    A registry that asks who we are gets `login`, as Docker writes it, where there is one; public images need none.
    """

    def __init__(self, base_url: str, path: str, login: str | None = None) -> None:
        self.base_url = base_url
        self.path = path
        self.login = login
        self.authorization: str | None = None

    @classmethod
    def of(cls, repository: str, mirrors: Mapping[str, str]) -> Registry:
        host, path = images.split(repository)
        mirror = mirrors.get(host)
        url = mirror or f"https://{DOCKER_HUB_API if host == images.DOCKER_HUB else host}"
        return cls(url.rstrip("/"), path, images.credentials(mirrors, repository, os.environ))

    def manifest(self, reference: str) -> tuple[str, dict[str, Any]]:
        """Return the digest and the document of a manifest or an index."""
        body, headers = self._get(f"manifests/{reference}", ", ".join((*INDEX_TYPES, *MANIFEST_TYPES)))
        digest = headers.get("Docker-Content-Digest") or reference
        return digest, json.loads(body)

    def config(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        body, _ = self._get(f"blobs/{manifest['config']['digest']}", "*/*")
        document: dict[str, Any] = json.loads(body)
        return document

    def platform(self, digest: str, manifest: Mapping[str, Any], unpacked_bytes: int | None = None) -> Platform:
        """Return what is locked of one architecture. A registry does not say how much the layers unpack to."""
        config = self.config(manifest)
        return Platform(
            manifest_digest=digest,
            config_digest=manifest["config"]["digest"],
            unpacked_bytes=unpacked_bytes,
            compressed_bytes=sum(layer["size"] for layer in manifest["layers"]),
            entrypoint=(config.get("config") or {}).get("Entrypoint"),
        )

    def _get(self, path: str, accept: str) -> tuple[bytes, Mapping[str, str]]:
        url = f"{self.base_url}/v2/{self.path}/{path}"
        try:
            try:
                return self._request(url, accept)
            except urllib.error.HTTPError as error:
                challenge = error.headers.get("WWW-Authenticate", "")
                answer = None if error.code != 401 or self.authorization else self._answer_to(challenge)
                if answer is None:
                    raise self._refused(url, f"HTTP {error.code}") from None
                self.authorization = answer
                return self._request(url, accept)
        except (OSError, ValueError, KeyError) as error:
            raise self._refused(url, str(error)) from None

    def _request(self, url: str, accept: str) -> tuple[bytes, Mapping[str, str]]:
        request = urllib.request.Request(url, headers={"Accept": accept})
        if self.authorization:
            # Blobs are often redirected to somebody else's storage.
            request.add_unredirected_header("Authorization", self.authorization)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.read(), answer.headers

    def _answer_to(self, challenge: str) -> str | None:
        """Return what a registry that refused asks for, or None where that cannot be had."""
        kind, _, text = challenge.partition(" ")
        if kind.lower() == "basic":
            return f"Basic {self.login}" if self.login else None
        if kind.lower() != "bearer":
            return None
        fields = dict(part.strip().split("=", 1) for part in text.split(","))
        fields = {key: value.strip('"') for key, value in fields.items()}
        query = urlencode([(key, fields[key]) for key in ("service", "scope") if key in fields])
        request = urllib.request.Request(f"{fields['realm']}?{query}")
        # Whoever answers chooses where the token comes from; a password goes nowhere in the clear.
        if self.login and fields["realm"].startswith("https://"):
            request.add_unredirected_header("Authorization", f"Basic {self.login}")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return f"Bearer {json.load(answer)['token']}"

    def _refused(self, url: str, reason: str) -> LockError:
        return LockError(
            f"the registry {urlsplit(url).netloc} did not give {self.path}: {reason}",
            "an image that this machine may read",
            "check the name and the network; set registry_mirrors for a registry of your own",
        )


def images_to_lock(catalog: Catalog, tags: list[str]) -> list[str]:
    """Return the tags with the ones they roll back to, so that a lock always names the way back."""
    wanted: list[str] = []
    for tag in tags:
        image = catalog.images.get(tag)
        wanted += [name for name in (tag, image.rollback_to if image else None) if name and name not in wanted]
    return wanted
