"""What a model's files hold, read from a hub before anything is downloaded: the right answer, or a refusal."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparkfleet.catalog.catalog import Drafter, Model, load
from sparkfleet.errors import LockError
from sparkfleet.release import contents, weights
from sparkfleet.release.lockfile import Lock
from sparkfleet.release.resolve import resolve_repo
from tests.lab import toymodels
from tests.lab.cases.reading import wait_for
from tests.lab.hub import Handler, HubServer
from tests.lab.hub_faults import Fault, bytes_served, set_faults
from tests.unit.sparkfleet.release.test_weights import DRAFTER_TWINS, TWINS

MODEL = load().models["gemma4-26b-a4b-nvfp4"]
assert MODEL.drafter
ROWS: dict[str, Model | Drafter] = {MODEL.repo: MODEL, MODEL.drafter.repo: MODEL.drafter}


@dataclass
class Hub:
    url: str
    store: Path
    folder: Path

    def lock(self) -> Lock:
        return Lock(schema=1, repos={repo: resolve_repo(repo, None, self.url) for repo in ROWS})

    def require(self, repo: str, lock: Lock | None = None) -> None:
        lock = lock or self.lock()
        expected = weights.expected_of(MODEL, ROWS[repo], lock.repos[MODEL.repo].commit)
        contents.require(lock, repo, expected, self.url)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    toymodels.write(folder)
    return folder


@pytest.fixture
def hub(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr(contents, "RETRIES", 0)
    store = Path(shutil.copytree(toys, tmp_path / "store", copy_function=os.link))
    server = HubServer(("127.0.0.1", 0), store, tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Hub(f"http://127.0.0.1:{server.server_address[1]}", store, tmp_path)
    server.stopping.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("repo", ROWS)
def test_a_model_that_is_what_the_catalogue_says_is_read_and_not_downloaded(hub: Hub, repo: str) -> None:
    lock = hub.lock()
    before = bytes_served(folder=hub.folder)

    hub.require(repo, lock)

    read, whole = bytes_served(folder=hub.folder) - before, lock.repos[repo].total_bytes
    assert 0 < read < whole, (read, whole)


def test_a_hub_that_knows_no_ranges_is_not_read_to_the_end(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its large files goes on for a GiB more, which no buffer between the two takes."""
    begun, sent, more = [], [], 1 << 30
    route, head, body = Handler._route, Handler._head, Handler._body

    def without_ranges(handler: Handler) -> None:
        del handler.headers["Range"]
        route(handler)

    def longer(handler: Handler, status: int, headers: dict[str, str], length: int) -> None:
        head(handler, status, headers, length + more * handler.path.startswith("/lfs/"))

    def endless(handler: Handler, source: Path, start: int, end: int, fault: Fault | None) -> None:
        begun.append(source)
        try:
            body(handler, source, start, end, fault)
            for _ in range(more >> 20) if handler.path.startswith("/lfs/") else ():
                handler.wfile.write(bytes(1 << 20))
                handler._sent += 1 << 20
        finally:
            sent.append(handler._sent)

    lock = hub.lock()
    monkeypatch.setattr(Handler, "_route", without_ranges)
    monkeypatch.setattr(Handler, "_head", longer)
    monkeypatch.setattr(Handler, "_body", endless)
    hub.require(MODEL.repo, lock)
    wait_for("the end of what was sent", lambda: len(sent) == len(begun) > 1, 30)
    assert max(sent) < more // 4


@pytest.mark.parametrize("name", TWINS)
def test_no_lock_is_made_of_a_model_that_any_rule_refuses(hub: Hub, name: str) -> None:
    spoil, words = TWINS[name]
    spoil(hub.store / toymodels.TARGET.repo / toymodels.TARGET.commit)

    with pytest.raises(LockError, match="differs from the catalogue") as refused:
        hub.require(toymodels.TARGET.repo)

    assert words in refused.value.found


@pytest.mark.parametrize("name", DRAFTER_TWINS)
def test_nor_of_a_drafter_that_does_not_fit_the_target_of_the_lock(hub: Hub, name: str) -> None:
    spoil, words = DRAFTER_TWINS[name]
    spoil(hub.store / toymodels.DRAFTER.repo / toymodels.DRAFTER.commit)

    with pytest.raises(LockError, match="differs from the catalogue") as refused:
        hub.require(toymodels.DRAFTER.repo)

    assert words in refused.value.found


FAULTS = {
    "cut off every time": Fault("truncate", "/lfs/*"),
    "a document that comes wrong": Fault("flip", "*/config.json"),
    "refused": Fault("status", "*/resolve/*", status=403),
    "busy for good": Fault("status", "*/resolve/*", status=503, retry_after_s=0),
    "gone": Fault("status", "/lfs/*", status=404),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_read_is_never_taken_for_good(hub: Hub, name: str) -> None:
    lock = hub.lock()
    set_faults(FAULTS[name], folder=hub.folder)

    with pytest.raises(LockError, match="the Hub refused to serve the files of") as refused:
        hub.require(MODEL.repo, lock)

    assert "python -m sparkfleet lock" in refused.value.remedy


def test_a_header_that_came_wrong_is_no_header(hub: Hub) -> None:
    lock = hub.lock()
    # The bit is in the middle of what was asked for, which is among the tensors' entries.
    set_faults(Fault("flip", "/lfs/*"), folder=hub.folder)
    with pytest.raises(LockError):
        hub.require(MODEL.repo, lock)


def test_an_answer_that_breaks_off_once_is_asked_for_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, content = [], Handler._content

    def noted(handler: Handler, repo: str, commit: str, path: str, fault: Fault | None) -> None:
        asked.append(path)
        content(handler, repo, commit, path, fault)

    lock = hub.lock()
    monkeypatch.setattr(Handler, "_content", noted)
    hub.require(MODEL.repo, lock)
    undisturbed = len(asked)
    set_faults(Fault("truncate", "/lfs/*", times=2), folder=hub.folder)
    hub.require(MODEL.repo, lock)
    assert len(asked) == 2 * undisturbed + 2
