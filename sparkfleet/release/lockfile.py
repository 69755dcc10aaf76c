"""fleet.lock.json: which digest a tag is, which commit a repository is, and every file with its size and hash.

Pure: reading, checking and comparing. `sparkfleet.release.resolve` fills a lock from the registry and the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from sparkfleet.catalog.catalog import Catalog, Commit, Digest, Sha256
from sparkfleet.catalog.rows import Row
from sparkfleet.errors import LockError
from sparknode.models.manifest import File, Manifest

SCHEMA = 1
# How much an image unpacks to where nobody says: 50.6 GB of 21.4 GB and 18.5 GB of 8.2 GB (AEON README).
UNPACKED = 2.5
REVIEW = "run `python -m sparkfleet lock` and review the difference"


class Platform(Row):
    """One architecture of an image; sizes in bytes. The image ID is one of the two digests, by docker's store."""

    manifest_digest: Digest
    config_digest: Digest
    compressed_bytes: int
    unpacked_bytes: int | None = None
    containerd_bytes: int | None = None
    entrypoint: list[str] | None = None

    def room(self) -> dict[str, int]:
        """Return the bytes that a pull takes, by Docker's image store.

        A graph driver removes what it has unpacked, one layer after the other; containerd's store keeps it.
        """
        both = self.compressed_bytes + (self.unpacked_bytes or int(UNPACKED * self.compressed_bytes))
        return {"graphdriver": both, "containerd": self.containerd_bytes or both}


class LockedImage(Row):
    repository: str
    registry_tag: str
    digest: Digest
    platforms: dict[str, Platform] = Field(min_length=1)


class LockedFile(Row):
    path: str
    size: int = Field(ge=0)
    sha256: Sha256 | None = None
    git_blob_sha1: Commit | None = None


class LockedRepo(Row):
    commit: Commit
    files: list[LockedFile] = Field(min_length=1)
    # What was held against the files and found true, by `weights.Expected.key`; a lock of an earlier version has none.
    content: list[Sha256] = []

    def manifest(self, repo: str) -> Manifest:
        files = sorted(self.files, key=lambda file: file.path)
        return Manifest(repo, self.commit, tuple(File(**file.model_dump()) for file in files))

    @property
    def manifest_sha256(self) -> str:
        return self.manifest("").sha256

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


class Lock(Row):
    schema_version: int = Field(alias="schema")
    images: dict[str, LockedImage] = {}
    repos: dict[str, LockedRepo] = {}

    def dumps(self) -> str:
        """Return the file's text: sorted and stable, for review in version control."""
        return json.dumps(self.model_dump(by_alias=True), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read(path: Path, catalog: Catalog) -> Lock | None:
    """Read a lock, or return None when there is none.

    Raises LockError when the file cannot be parsed or contradicts the catalogue.
    """
    lock = parse(path)
    for found, expected, remedy in _contradictions(lock, catalog) if lock else ():
        raise LockError(f"{path}: {found}", expected, remedy)
    return lock


def parse(path: Path) -> Lock | None:
    """Read a lock as it stands, whatever the catalogue holds of it. Raises LockError when it cannot be parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path} cannot be read: {error}", "a lock written by this version", REVIEW) from None
    try:
        lock = Lock.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise LockError(f"{path}: {where}: {first['msg']}", "a lock written by this version", REVIEW) from None
    if lock.schema_version != SCHEMA:
        raise LockError(f"{path}: schema is {lock.schema_version}", str(SCHEMA), "run `python -m sparkfleet lock`")
    return lock


def _contradictions(lock: Lock, catalog: Catalog) -> Iterator[tuple[str, str, str]]:
    """What was found, what the catalogue says instead, and the next step."""
    for tag, locked in lock.images.items():
        image = catalog.images.get(tag)
        if image and image.repository != locked.repository:
            expected = f"{image.repository}, as in the catalogue"
            yield f"images.{tag}.repository is {locked.repository}", expected, REVIEW
        if image and image.digest and image.digest != locked.digest:
            expected = f"{image.digest}, the published digest in the catalogue"
            remedy = "the tag was moved upstream: find out why before you change either of them"
            yield f"images.{tag}.digest is {locked.digest}", expected, remedy
    for model_id, model in catalog.models.items():
        for row in model.all_repositories():
            pinned = lock.repos.get(row.repo)
            if pinned and row.revision and pinned.commit != row.revision:
                expected = f"{row.revision}, the revision that models.{model_id} pins"
                remedy = "run `python -m sparkfleet lock`, or change the revision in the catalogue"
                yield f"repos.{row.repo}.commit is {pinned.commit}", expected, remedy


def changes(old: Lock | None, new: Lock) -> list[str]:
    """Say what moved upstream from one lock to the other, a line each; what is known of the same files did not move."""
    lines = []
    for tag, before, after in _moved(old.images if old else {}, new.images):
        digests = (image.digest[:19] if image else "absent" for image in (before, after))
        lines.append(f"image {tag}: {' → '.join(digests)}")
    for repo, was, now in _moved(_bare(old), _bare(new)):
        commits = (one.commit[:12] if one else "absent" for one in (was, now))
        lines.append(f"repo {repo}: {' → '.join(commits)}")
        if was and now:
            files = ({file.path: file for file in one.files} for one in (was, now))
            lines += [f"  {name}" for name, _, _ in _moved(*files)]
    return lines


def _bare(lock: Lock | None) -> dict[str, LockedRepo]:
    return {repo: one.model_copy(update={"content": []}) for repo, one in (lock.repos if lock else {}).items()}


V = TypeVar("V")


def _moved(old: Mapping[str, V], new: Mapping[str, V]) -> Iterator[tuple[str, V | None, V | None]]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)
