"""What a terminal shows during a rollout, and what the page afterwards shows."""

from __future__ import annotations

import io
import logging
import re
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.api import Host

from sparkfleet.inventory.pace import Pace
from sparkfleet.report import console, live, page
from sparkfleet.rollout.fleet_run import FleetRun
from tests.bundles import document, seen


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> tuple[live.Live, io.StringIO, list[str]]:
    clock = iter(range(100, 100000, 30))
    monkeypatch.setattr("sparkfleet.report.live.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setenv("COLUMNS", "80")
    said: list[str] = []
    monkeypatch.setattr("sparkfleet.report.live.click.echo", lambda text, **_: said.append(str(text).strip()))
    hosts: dict[str, Any] = {"spark-1": None, "spark-2": None}
    history = [{"state": "committed", "seconds": 240.0}]
    run = FleetRun(hosts, Pace(), nodes={"spark-1": seen(document(history=history)), "spark-2": seen(document())})
    out = io.StringIO()
    return live.Live(run, out), out, said


def echo(screen: live.Live, message: str, **options: bool) -> None:
    """Print a line as pyinfra does while commands run on every host of the run."""
    voice = console.Voice()
    voice.screen = screen
    with ExitStack() as stack:
        for name in screen._run.hosts:
            host = SimpleNamespace(name=name, print_prefix=f"[{name}] ")
            stack.enter_context(voice.following(cast("Host", host)))
        voice.echo(message, **options)


def block(out: io.StringIO) -> list[str]:
    """What stands at the bottom of the terminal now."""
    return re.split(r"\x1b\[\d+A\x1b\[J", out.getvalue())[-1].splitlines()


def test_each_host_is_one_line_with_phase_time_and_what_is_left(shown: Any) -> None:
    screen, out, said = shown
    echo(screen, "[spark-1] starting: engine has loaded for 20 s of at most 2400 s (weights, 2380 s left)", err=True)
    echo(screen, "[spark-2] draining: no request left after 0 s", err=True)
    echo(screen, "[spark-1] probing: short-chat pass: 12 tokens " + "and more words " * 9, err=True)
    first, second = block(out)
    assert re.match(r"spark-1  probing       \d:\d\d  about \d+ \w+ left + short-chat pass: 12 tokens", first)
    assert re.match(r"spark-2  draining      \d:\d\d  about \d+ \w+ left + no request left", second)
    assert all(len(line) < 80 for line in (first, second))
    assert said == []


def test_no_word_is_cut(shown: Any) -> None:
    screen, out, said = shown
    echo(screen, "[spark-1] stopping: systemctl stop sparkfleet-serve.service, at most 50 s", err=True)
    assert block(out)[0].endswith("  systemctl stop …")
    echo(screen, "[spark-1] failed: " + "accepted " * 12, err=True)
    assert [len(line) <= 80 and "accepted" in line for line in said[0].splitlines()] == [True, True]


def test_failures_stay_and_what_ended_leaves_the_block(shown: Any) -> None:
    screen, out, said = shown
    echo(screen, "[spark-1] reverting: acceptance-short: 0.0 %", err=True)
    echo(screen, "[spark-2] committed: release 1 is verified", err=True)
    assert said == ["[spark-1] reverting: acceptance-short: 0.0 %", "[spark-2] committed: release 1 is verified"]
    assert len(block(out)) == 1
    echo(screen, "[spark-1] reverted: serves again", err=True)
    assert block(out) == []


def test_more_hosts_than_rows_are_counted(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out, _ = shown
    monkeypatch.setenv("LINES", "10")
    screen._run.hosts.update(dict.fromkeys(f"host-{number}" for number in range(30)))
    for number in range(30):
        echo(screen, f"[host-{number}] {'starting' if number < 20 else 'probing'}: x")
    assert len(block(out)) == 9
    assert block(out)[-1] == "… and 22 more: 12 starting, 10 probing"


def test_a_burst_of_lines_is_drawn_once(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out, _ = shown
    monkeypatch.setattr("sparkfleet.report.live.time.monotonic", lambda: 50.0)
    for number in range(100):
        echo(screen, f"[spark-1] starting: {number} s")
    assert out.getvalue().count("starting") == 1
    screen.draw()
    assert "99 s" in block(out)[0]


def test_other_lines_go_above_and_logs_find_room(shown: Any) -> None:
    screen, out, said = shown
    echo(screen, "[spark-1] starting: x")
    echo(screen, "[elsewhere] starting: y")
    echo(screen, "--> a line of pyinfra's")
    assert said == ["[elsewhere] starting: y", "--> a line of pyinfra's"]
    assert screen.filter(logging.makeLogRecord({})) is True
    assert block(out) == []


def test_bars_are_shares_of_the_whole() -> None:
    def at(second: int, state: str) -> dict[str, str]:
        return {"state": state, "t": f"2026-11-23T10:00:{second:02}.000Z"}

    lanes, span = page.timeline(
        {
            "a": [at(0, "leased"), at(10, "starting"), at(20, "committed")],
            "b": [at(20, "leased"), at(40, "reverted")],
            "c": [],
        }
    )
    assert span == 40
    assert [(bar["state"], bar["left"], bar["width"], bar["seconds"]) for bar in lanes["a"]] == [
        ("leased", 0, 25, 10),
        ("starting", 25, 25, 10),
    ]
    assert [(bar["left"], bar["width"]) for bar in lanes["b"]] == [(50, 50)]
    assert "c" not in lanes


def test_no_phase_anywhere_has_no_span() -> None:
    assert page.timeline({"a": []}) == ({}, 0.0)
