"""`lock` after ordinary events: a catalogue that moved, a trial that ended, a deleted tag, a file that broke."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sparkfleet import ROOT
from sparkfleet.catalog.catalog import Image, load
from sparkfleet.cli import locking
from sparkfleet.errors import FleetError, LockError
from sparkfleet.inventory.settings import Settings, parse_settings
from sparkfleet.release import contents, lockfile, resolve, weights
from tests.plan.harness import CURRENT_TAG, DRAFTER, PREFIX_TAG, TARGET, lock_document

KNOWN = load()
MODEL = "gemma4-26b-a4b-nvfp4"
OTHER = "2026-06-18-v0.23.0-dflashfix"


def settings_of(tmp_path: Path, **more: Any) -> Settings:
    data = {"model": MODEL, "image_tag": CURRENT_TAG, "profile": "agentic", "hardware": "gb10", "batch_size": 1}
    return parse_settings("spark-1", {**data, "lock_file": str(tmp_path / "fleet.lock.json"), **more})


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Registry and Hub as the lock document has them, but for the tags put into this set, which are gone."""
    gone: set[str] = set()
    document = lockfile.Lock.model_validate(lock_document())

    def resolve_image(tag: str, image: Image, mirrors: Mapping[str, str]) -> lockfile.LockedImage:
        assert not mirrors
        if tag in gone:
            raise LockError(f"HTTP 404 for {tag}")
        return document.images[CURRENT_TAG].model_copy(update={"registry_tag": tag, "repository": image.repository})

    def resolve_repo(repo: str, revision: str | None, endpoint: str | None) -> lockfile.LockedRepo:
        assert endpoint is None
        assert revision == document.repos[repo].commit
        return document.repos[repo]

    monkeypatch.setattr(resolve, "resolve_image", resolve_image)
    monkeypatch.setattr(resolve, "resolve_repo", resolve_repo)
    monkeypatch.setattr(contents, "require", lambda *_: None)
    return gone


def old_lock(**changes: Any) -> lockfile.Lock:
    document = lock_document()
    for key, rows in changes.items():
        document[key] |= rows
    return lockfile.Lock.model_validate(document)


def again(tmp_path: Path, old: lockfile.Lock | None, **tags: str | None) -> lockfile.Lock:
    wanted = locking.Wanted(tags or {CURRENT_TAG: None}, (MODEL,))
    return locking.checked(locking.resolved(settings_of(tmp_path), KNOWN, wanted, old), old, KNOWN, wanted, None)


@pytest.mark.usefixtures("upstream")
def test_a_wanted_tag_brings_its_way_back(tmp_path: Path) -> None:
    new = again(tmp_path, None)
    assert set(new.images) == {CURRENT_TAG, PREFIX_TAG}
    assert set(new.repos) == {TARGET, DRAFTER}


@pytest.mark.usefixtures("upstream")
def test_a_trial_that_ended_leaves_the_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = old_lock().images[CURRENT_TAG].model_dump()
    new = again(tmp_path, old_lock(images={"2026-07-01-mytrial": trial}))
    assert set(new.images) == {CURRENT_TAG, PREFIX_TAG}
    assert "image 2026-07-01-mytrial leaves the lock" in capsys.readouterr().err
    kept = again(tmp_path, None, **{CURRENT_TAG: None, "2026-07-01-mytrial": CURRENT_TAG})
    assert "2026-07-01-mytrial" in kept.images


def test_a_tag_that_was_deleted_stays_locked_unless_it_is_wanted(
    tmp_path: Path, upstream: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.add(OTHER)
    old = old_lock(images={OTHER: old_lock().images[CURRENT_TAG].model_dump()})
    assert again(tmp_path, old).images[OTHER] == old.images[OTHER]
    assert f"image {OTHER} stays as it was locked" in capsys.readouterr().err
    with pytest.raises(LockError, match="HTTP 404"):
        again(tmp_path, old, **{OTHER: None})
    upstream.add(PREFIX_TAG)
    with pytest.raises(LockError, match="HTTP 404"):
        again(tmp_path, old)


@pytest.mark.usefixtures("upstream")
def test_a_revision_that_the_catalogue_moved_is_followed(tmp_path: Path) -> None:
    stale = old_lock(repos={DRAFTER: {"commit": "0" * 40, "files": [{"path": "a", "size": 1}]}})
    new = again(tmp_path, stale)
    assert new.repos[DRAFTER].commit != "0" * 40
    (tmp_path / "lock").write_text(new.dumps())
    assert lockfile.read(tmp_path / "lock", KNOWN) == new


@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize(
    "text",
    [
        "{broken",
        json.dumps({"schema": 9}),
        "\x00",
        json.dumps({**lock_document(), "surprise": 1}),
        old_lock(repos={DRAFTER: {"commit": "0" * 40, "files": [{"path": "a", "size": 1}]}}).dumps(),
    ],
)
def test_the_command_is_its_own_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    settings = settings_of(tmp_path)
    settings.lock_path.write_text(text)
    monkeypatch.setattr(locking, "_settings", lambda *_: [settings])
    options = argparse.Namespace(inventory=None, data=[], check=False)
    assert locking.run(options) == 0
    assert lockfile.read(settings.lock_path, KNOWN) is not None
    assert locking.run(argparse.Namespace(inventory=None, data=[], check=True)) == 0


def test_a_check_without_a_lock_names_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_settings", lambda *_: [settings_of(tmp_path)])
    with pytest.raises(FleetError, match="to compare with") as refused:
        locking.run(argparse.Namespace(inventory=None, data=[], check=True))
    assert "python -m sparkfleet lock" in refused.value.remedy
    assert ROOT.is_dir()


@pytest.fixture
def read(upstream: set[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:  # noqa: ARG001
    """The repositories whose files are read, in order."""
    asked: list[str] = []
    monkeypatch.setattr(contents, "require", lambda _lock, repo, *_: asked.append(repo))
    return asked


def test_what_files_hold_is_read_once(tmp_path: Path, read: list[str]) -> None:
    first = again(tmp_path, None)
    assert read == [TARGET, DRAFTER]
    assert all(len(first.repos[repo].content) == 1 for repo in (TARGET, DRAFTER))
    read.clear()
    assert again(tmp_path, first) == first
    assert read == []
    bare = {repo: locked.model_copy(update={"content": []}) for repo, locked in first.repos.items()}
    assert lockfile.changes(first.model_copy(update={"repos": bare}), first) == []


def test_files_that_moved_and_rows_that_changed_are_read_again(tmp_path: Path, read: list[str]) -> None:
    first = again(tmp_path, None)
    other = first.repos[TARGET].model_copy(update={"files": [lockfile.LockedFile(path="a", size=1)]})
    read.clear()
    again(tmp_path, first.model_copy(update={"repos": {**first.repos, TARGET: other}}))
    assert read == [TARGET]
    others = first.model_copy(deep=True)
    others.repos[DRAFTER].content[:] = ["e" * 64]
    read.clear()
    assert again(tmp_path, others) == first
    assert read == [DRAFTER]


@pytest.mark.usefixtures("upstream")
def test_no_lock_is_made_of_files_that_hold_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def require(_lock: lockfile.Lock, repo: str, *_: object) -> None:
        raise LockError(f"{repo} differs from the catalogue")

    settings = settings_of(tmp_path)
    monkeypatch.setattr(locking, "_settings", lambda *_: [settings])
    monkeypatch.setattr(contents, "require", require)
    with pytest.raises(LockError, match="differs from the catalogue"):
        locking.run(argparse.Namespace(inventory=None, data=[], check=False))
    assert not settings.lock_path.exists()


def test_a_check_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]) -> None:
    settings = settings_of(tmp_path)
    settings.lock_path.write_text(old_lock().dumps())
    monkeypatch.setattr(locking, "_settings", lambda *_: [settings])
    assert locking.run(argparse.Namespace(inventory=None, data=[], check=True)) == locking.MOVED
    assert read == []


def test_a_lock_of_an_earlier_version_vouches_for_nothing(tmp_path: Path, read: list[str]) -> None:
    model = KNOWN.models[MODEL]
    document = lock_document()
    for repo in document["repos"].values():
        del repo["content"]
    earlier = lockfile.Lock.model_validate(document)
    assert set(weights.unchecked(earlier, model, model.drafter)) == {TARGET, DRAFTER}
    assert weights.unchecked(again(tmp_path, None), model, model.drafter) == {}
    assert read


def test_another_drafter_is_locked_where_a_profile_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = lockfile.Lock.model_validate(lock_document())
    asked: list[str] = []

    def resolve_repo(repo: str, _revision: str | None, _endpoint: str | None) -> lockfile.LockedRepo:
        asked.append(repo)
        return pinned.repos.get(repo, pinned.repos[DRAFTER])

    monkeypatch.setattr(resolve, "resolve_image", lambda tag, *_: pinned.images[tag])
    monkeypatch.setattr(resolve, "resolve_repo", resolve_repo)
    monkeypatch.setattr(contents, "require", lambda *_: None)
    for drafters, more in ((frozenset[str](), []), (frozenset({"assistant"}), ["google/gemma-4-26B-A4B-it-assistant"])):
        asked.clear()
        wanted = locking.Wanted({CURRENT_TAG: None}, (MODEL,), drafters)
        locking.resolved(settings_of(tmp_path), KNOWN, wanted, None)
        assert asked == [TARGET, DRAFTER, *more]
