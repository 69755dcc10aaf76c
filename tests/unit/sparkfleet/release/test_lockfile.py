"""The lock: stable text, what moved, what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.catalog.catalog import load
from sparkfleet.errors import LockError
from sparkfleet.release import lockfile
from tests.plan.harness import CURRENT_TAG, DRAFTER, TARGET, lock_document


def parsed(document: dict[str, Any]) -> lockfile.Lock:
    return lockfile.Lock.model_validate(document)


def test_writing_and_reading_gives_the_same_text(tmp_path: Path) -> None:
    text = parsed(lock_document()).dumps()
    path = tmp_path / "lock.json"
    path.write_text(text)
    again = lockfile.read(path, load())
    assert again is not None
    assert again.dumps() == text
    assert json.loads(text) == json.loads(json.dumps(json.loads(text), sort_keys=True))


def test_no_lock_is_none(tmp_path: Path) -> None:
    assert lockfile.read(tmp_path / "absent.json", load()) is None


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("schema",), 2, "schema is 2"),
        (("images", CURRENT_TAG, "digest"), "sha256:short", "digest"),
        (("images", CURRENT_TAG, "repository"), "ghcr.io/other/image", "ghcr.io/aeon-7/aeon-vllm-ultimate"),
        (("repos", DRAFTER, "commit"), "0" * 40, "77d4202772dfe50b2396ec7bac9cfffc7b9e7057"),
        (("repos", TARGET, "files"), [], "files"),
        (("surprise",), {}, "surprise"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, path: tuple[str, ...], value: Any, words: str) -> None:
    document = lock_document()
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file = tmp_path / "fleet.lock.json"
    file.write_text(json.dumps(document))
    with pytest.raises(LockError) as refused:
        lockfile.read(file, load())
    assert words in refused.value.text()
    assert "fleet.lock.json" in refused.value.text()


def test_a_moved_published_digest_is_refused(tmp_path: Path) -> None:
    document = lock_document()
    tag = "2026-07-27-v0.26.0"
    document["images"][tag] = {**document["images"][CURRENT_TAG], "registry_tag": tag}
    file = tmp_path / "fleet.lock.json"
    file.write_text(json.dumps(document))
    with pytest.raises(LockError, match="the tag was moved upstream"):
        lockfile.read(file, load())


def test_changes_name_image_commit_and_files() -> None:
    before, after = lock_document(), lock_document()
    assert lockfile.changes(parsed(before), parsed(after)) == []
    after["images"][CURRENT_TAG]["digest"] = "sha256:" + "ef" * 32
    after["repos"][TARGET]["commit"] = "1" * 40
    after["repos"][TARGET]["files"][0]["size"] = 3
    lines = "\n".join(lockfile.changes(parsed(before), parsed(after)))
    assert f"image {CURRENT_TAG}" in lines
    assert f"repo {TARGET}: 1d7e8dbc4456 → 111111111111" in lines
    assert "  config.json" in lines
    assert "absent →" in "\n".join(lockfile.changes(None, parsed(before)))


def test_the_manifest_hash_depends_on_every_file() -> None:
    repo = parsed(lock_document()).repos[TARGET]
    other = repo.model_copy(update={"files": [repo.files[0].model_copy(update={"size": 3})]})
    assert repo.manifest_sha256 != other.manifest_sha256
