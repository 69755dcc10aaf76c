"""Knobs and pretended memory: the control server with an engine's real line to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import control, meminfo
from tests.lab.config import Host, LabError
from tests.lab.control_server import Books, ControlServer, host_at
from tests.lab.engine.knobs import KnobError, checked, merged
from tests.lab.engine.link import ADDRESS_VARIABLE, Link

HERE = "elsewhere"


class Lab:
    def __init__(self, books: Books, port: int) -> None:
        self.books = books
        self.port = port


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    books = Books(tmp_path / "knobs.json", {})
    server = ControlServer(("127.0.0.1", 0), books)
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv(ADDRESS_VARIABLE, f"http://127.0.0.1:{port}")
    monkeypatch.setattr(control, "GATEWAY", "127.0.0.1")
    monkeypatch.setattr(control, "CONTROL_PORT", port)
    yield Lab(books, port)
    server.shutdown()
    server.server_close()


def until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_the_narrower_setting_wins(lab: Lab) -> None:
    lab.books.change("all", None, {"acceptance": 0.1, "load_s": 9.0})
    lab.books.change("all", "a-tag", {"acceptance": 0.2})
    lab.books.change("spark-1", None, {"acceptance": 0.3})
    lab.books.change("spark-1", "a-tag", {"acceptance": 0.4})
    found = [lab.books.knobs(host, tag).acceptance for host in ("spark-2", "spark-1") for tag in (None, "a-tag")]
    assert found == [0.1, 0.2, 0.3, 0.4]
    assert lab.books.knobs("spark-1", "a-tag").load_s == 9.0
    control.clear_knobs("spark-1")
    assert lab.books.knobs("spark-1", "a-tag").acceptance == 0.2
    control.clear_knobs()
    assert control.knobs() == {}


@pytest.mark.usefixtures("lab")
def test_a_knob_reaches_a_running_engine_before_the_call_returns() -> None:
    link = Link("a-tag")
    assert link.current().hang_with_health_200 is False
    control.set_knobs(hang_with_health_200=True)
    assert link.current().hang_with_health_200 is True
    control.set_knobs(tag="another-tag", hang_with_health_200=False)
    assert link.current().hang_with_health_200 is True


def test_memory_is_held_while_the_line_stands_and_comes_back_late(lab: Lab) -> None:
    lab.books.change("all", None, {"memory_return_s": 0.3})
    first = Link("a-tag")
    grant = first.hold(0.80)
    assert grant is not None
    assert (grant.granted, grant.available_kib) == (True, meminfo.IDLE_AVAILABLE_KIB)
    assert grant.needed_kib == 102_028_180
    second = Link("a-tag").hold(0.80)
    assert second is not None
    assert (second.granted, second.available_kib) == (False, meminfo.IDLE_AVAILABLE_KIB - grant.needed_kib)
    ended = time.monotonic()
    first.close()

    def is_back() -> bool:
        lab.books.show()
        return lab.books.available(HERE) == meminfo.IDLE_AVAILABLE_KIB

    until(is_back)
    assert time.monotonic() - ended > 0.29


@pytest.mark.usefixtures("lab")
def test_memory_can_be_scarce() -> None:
    control.set_knobs(mem_available_kib=1_000_000)
    grant = Link("a-tag").hold(0.5)
    assert grant is not None
    assert (grant.granted, grant.available_kib) == (False, 1_000_000)


def test_without_a_lab_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, "")
    link = Link("a-tag")
    assert link.current() == merged()
    assert link.hold(0.8) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"no_such": "1"}, "no knob is called 'no_such'"),
        ({"never_ready": "perhaps"}, "expected true or false"),
        ({"load_s": "long"}, "expected a number"),
    ],
)
@pytest.mark.usefixtures("lab")
def test_a_bad_knob_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(KnobError, match=message):
        checked(settings)
    with pytest.raises(LabError, match=message):
        control.set_knobs(**settings)


def test_knobs_from_a_command_line_get_their_own_type() -> None:
    texts = {"acceptance": "none", "never_ready": "on", "mem_available_kib": "12", "wrong_model_name": "x"}
    assert checked(texts) == {"acceptance": None, "never_ready": True, "mem_available_kib": 12, "wrong_model_name": "x"}


def test_hosts_are_known_by_either_address() -> None:
    assert [host_at(address) for address in ("10.83.0.11", "10.83.1.12", "127.0.0.1")] == ["spark-1", "spark-2", HERE]


def test_the_figures_keep_their_place_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.lab.config.HOSTS_DIR", tmp_path)
    host = Host(1)
    (host.folder / "lab").mkdir(parents=True)
    meminfo.write(host, 123)
    file = host.folder / "lab" / "meminfo"
    inode, size = file.stat().st_ino, file.stat().st_size
    meminfo.write(host, meminfo.IDLE_AVAILABLE_KIB)
    assert (file.stat().st_ino, file.stat().st_size) == (inode, size)
    assert f"MemAvailable:    {meminfo.IDLE_AVAILABLE_KIB} kB\n" in file.read_text()
    assert file.read_text().startswith("MemTotal:        127535224 kB\n")
