"""A model's manifest, and the proof that a folder holds exactly what it says."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from sparknode.base.document import canonical
from sparknode.base.shape import Node, written
from sparknode.errors import Refused
from sparknode.state.releases import checked_repo

_CHUNK = 4 << 20
_LFS_POINTER = b"version https://git-lfs"
# Enough to keep an NVMe busy; hashing releases the interpreter's lock.
THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class File:
    path: str
    size: int
    sha256: str | None
    git_blob_sha1: str | None


@dataclass(frozen=True)
class Manifest:
    repo: str
    commit: str
    files: tuple[File, ...]

    @cached_property
    def sha256(self) -> str:
        return content_hash(self.files)

    @property
    def name(self) -> str:
        return f"{self.repo}@{self.commit[:12]}"

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def folders(self) -> set[str]:
        parents = {str(parent) for file in self.files for parent in PurePosixPath(file.path).parents}
        return parents - {"."}


def content_hash(files: Iterable[File]) -> str:
    """The hash by which a release names a manifest: its files' entries as canonical JSON, in the order of paths."""
    entries = [written(file) for file in sorted(files, key=lambda file: file.path)]
    return hashlib.sha256(canonical(entries)).hexdigest()


def from_node(node: Node) -> Manifest:
    """Read and check one manifest."""
    repo, commit = checked_repo(node)
    files = tuple(_file(entry) for entry in node.nodes("files"))
    if not files:
        raise Refused(f"{node.where}.files: found an empty list, expected at least one file")
    if len({file.path for file in files}) != len(files):
        raise Refused(f"{node.where}.files: a path is listed twice; make the lock again")
    return Manifest(repo, commit, files)


def _file(node: Node) -> File:
    path = node.text("path")
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\0" in path or str(PurePosixPath(path)) != path:
        raise Refused(f"{node.where}.path: found {path!r}, expected a plain path inside the repository")
    sha256, git = node.optional_text("sha256"), node.optional_text("git_blob_sha1")
    if sha256 is None and git is None:
        raise Refused(f"{node.where}: neither sha256 nor git_blob_sha1 of {path!r} is given; make the lock again")
    return File(path, node.whole("size"), sha256, git)


def problems(manifest: Manifest, folder: Path, read: Callable[[int], None] = lambda _: None) -> list[str]:
    """Each way in which a folder is not the manifest: names, kinds, sizes, and every byte.

    `read` is told how many bytes were read, by several threads.
    """
    found = _walk(folder)
    wanted = {file.path: file for file in manifest.files}
    texts = [f"{path}: it is {kind}, expected a plain file" for path, kind in found.items() if kind and path in wanted]
    texts += [f"{path}: it is not in the manifest" for path in sorted(set(found) - set(wanted))]
    texts += [f"{path}: it is missing" for path in sorted(set(wanted) - set(found))]
    plain = [file for file in manifest.files if file.path in found and not found[file.path]]
    with ThreadPoolExecutor(THREADS) as pool:
        # The largest first, so that one big file does not run on alone at the end.
        checks = pool.map(lambda file: _check(folder, file, read), sorted(plain, key=lambda file: -file.size))
        texts += [text for text in checks if text]
    return texts


def _walk(folder: Path) -> dict[str, str]:
    """Every path that is no folder, with the word for what it is when it is no plain file."""
    found = {}
    for base, folders, files in os.walk(folder):
        for path in (Path(base) / name for name in (*files, *folders)):
            mode = path.lstat().st_mode
            if not stat.S_ISDIR(mode):
                kind = "" if stat.S_ISREG(mode) else "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
                found[str(path.relative_to(folder))] = kind
    return found


def _check(folder: Path, file: File, read: Callable[[int], None]) -> str | None:
    """One file's size and hash. It's made durable on the way: the rename that follows vouches for its bytes."""
    try:
        with (folder / file.path).open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            # Also one of the locked hash: a mirror that knows no LFS gives pointers to whoever makes the lock.
            if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
                return f"{file.path}: {size} bytes; it is a Git LFS pointer, not the file itself"
            if size != file.size:
                return f"{file.path}: {size} bytes, expected {file.size}"
            stream.seek(0)
            digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % size)
            buffer = memoryview(bytearray(min(_CHUNK, size)))
            while count := stream.readinto(buffer) if size else 0:
                digest.update(buffer[:count])
                read(count)
            os.fsync(stream.fileno())
            # The GPU's own count takes the page cache for used memory (vllm#48140), so a look must not leave one.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as problem:
        return f"{file.path}: it can't be read ({problem.strerror})"
    expected = file.sha256 or file.git_blob_sha1
    if digest.hexdigest() == expected:
        return None
    return f"{file.path}: {digest.name} {digest.hexdigest()}, expected {expected}"
