"""Only the locked bytes count: size alone proves nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sparkfleet.fetch import is_right
from sparkfleet.lock import LockedFile

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("hashes", [{"sha256": SHA256}, {"git_blob_sha1": BLOB}])
@pytest.mark.parametrize(
    ("content", "right"),
    [
        (CONTENT, True),
        (CONTENT[:-1], False),
        (CONTENT[:-1] + b"X", False),
        (b"version https://git-lfs.github.com/spec/v1\n", False),
        (None, False),
    ],
)
def test_is_right(tmp_path: Path, hashes: dict[str, str], content: bytes | None, right: bool) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert is_right(path, LockedFile(path="model.safetensors", size=len(CONTENT), **hashes)) is right


def test_a_file_without_any_hash_is_never_right(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(CONTENT)
    assert not is_right(path, LockedFile(path="x", size=len(CONTENT)))
