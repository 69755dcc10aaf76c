"""A host's part in a spread: how long it goes on without anybody who watches."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from sparknode.base.paths import Paths
from sparknode.base.system import Host, RealSystem
from sparknode.models import spread
from sparknode.models.spread import share, stop
from tests.unit.sparknode.builders import COMMIT, REPO, manifest, write_model


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host that has a model, and an rsync that gives to nobody."""
    made = Host(Paths(tmp_path / "host"), RealSystem())
    (tmp_path / "rsync").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    write_model(made.paths.model_dir(REPO, COMMIT))
    monkeypatch.setattr(spread, "TICK_S", 0.01)
    return made


def give(host: Host, deadline_s: float = 20.0) -> tuple[threading.Thread, list[int]]:
    order: dict[str, object] = {
        "role": "give",
        "torrent": None,
        "address": "127.0.0.1",
        "peers": ["127.0.0.1"],
        "port": 6891,
    }
    order |= {"limit_bytes_s": 0.0, "stall_s": 5.0, "deadline_s": deadline_s, "reserve_bytes": 0.0}
    request = json.dumps({"schema": 1, "manifest": manifest(), "order": order})
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(share(host, request, lambda _: None)))
    thread.start()
    until = time.monotonic() + 10
    while not (host.paths.spread / "rsyncd.conf").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    return thread, ended


@pytest.mark.parametrize("clock", [0.0, 4e9])
def test_a_clock_that_is_set_meanwhile_is_no_silence(host: Host, clock: float) -> None:
    thread, ended = give(host)
    os.utime(host.paths.spread / "asked", (clock, clock))
    time.sleep(0.3)
    assert ended == []
    stop(host)
    thread.join(20)
    assert ended == [0]


def test_silence_ends_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "SILENCE_S", 0.2)
    thread, ended = give(host)
    thread.join(10)
    assert ended == [1]
    assert not host.paths.spread.exists()
