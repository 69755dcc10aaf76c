"""The table: a state a word, figures where there are some, odd hosts first, whole words at any width."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sparkfleet.deploy.look import history_lines
from sparkfleet.inventory.pace import Pace
from sparkfleet.preflight.seen import Seen
from sparkfleet.report.fleet_table import DISPENSABLE, HEADINGS, arranged, host_row, remarks, state_of
from sparkfleet.rollout.fleet_run import FleetRun
from sparkfleet.text import fitted, table, wrapped
from sparknode.state.status import Ended
from tests import bundles
from tests.bundles import document

ID = "0123456789abcdef"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FLEET: dict[str, Any] = {
    "current": ID,
    "verified": ID,
    "serving": {"release": ID, "unit": "active", "drift": [], "container_started_at": "2026-11-20T11:00:00.1Z"},
    "activation": None,
    "last": {"state": "committed", "t": "2026-11-20T11:03:00.000Z"},
    "proof": {"figures": {"acceptance-short": {"figure": 0.6}}, "load_s": 41.7},
    "watch": {
        "release": ID,
        "verdict": "ok",
        "acceptance": 0.57,
        "tokens_per_second": 88.1,
        "kv_use": 0.12,
        "findings": {},
    },
    "models": [{"repo": "org/target", "commit": "c" * 40}],
    "release": {
        "id": ID,
        "model": "m",
        "image_tag": "2026-06-11-pr41703",
        "digest": "sha256:09c83d0000000000",
        "profile": "agentic",
        "drafter_backend": "flash_attn",
        "commits": {"org/target": "c" * 40},
    },
}


def seen(name: str, node: dict[str, Any]) -> FleetRun:
    """A run that read one node, of which these keys are known, or why it gave no answer."""
    found = document(**node.get("fleet", {}))
    found["memory"] |= {"available_kib": None, **node.get("memory", {})}
    return FleetRun({}, Pace(), nodes={name: Seen(error=node["error"]) if "error" in node else bundles.seen(found)})


def row_of(name: str, node: dict[str, Any], now: datetime | None = None) -> tuple[str, ...]:
    return host_row(seen(name, node), name, now)


NODE: dict[str, Any] = {"fleet": FLEET, "memory": {"available_kib": 21 * 1024 * 1024}}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "verified"),
        ({"verified": "other"}, "unverified"),
        ({"serving": {"unit": "active", "drift": ["image"]}}, "drift"),
        ({"models": []}, "drift"),
        ({"serving": {"unit": "failed", "drift": []}}, "stopped (failed)"),
        ({"activation": {"state": "probing"}}, "probing"),
        ({"current": None}, "unprovisioned"),
        ({"current": None, "last": {"state": "failed"}}, "failed"),
        ({"last": {"state": "failed"}}, "unverified"),
        ({"watch": {"verdict": "bad", "findings": {"stalled": "no token for 90 s"}}}, "ailing"),
    ],
)
def test_states(changes: dict[str, Any], state: str) -> None:
    assert state_of(seen("a", {"fleet": {**FLEET, **changes}}), "a") == state


def test_a_host_without_an_answer() -> None:
    assert state_of(seen("a", {"error": "x"}), "a") == "no answer"
    assert remarks(seen("a", {"error": "it cannot be reached"}), "a") == ["a: it cannot be reached"]


@pytest.mark.parametrize(
    ("error", "says"), [("", "no reason"), (None, "no reason"), ("\n\n", "no reason"), ("a\nb", "a")]
)
def test_a_roll_out_that_ended_without_a_reason_costs_no_table(error: str | None, says: str) -> None:
    (text,) = remarks(seen("a", {"fleet": {"last": {"state": "failed", "error": error}}}), "a")
    assert text.startswith(f"a: last rollout failed: {says}")


def test_the_row_of_a_verified_host() -> None:
    row = dict(zip(HEADINGS, row_of("spark-1", NODE, NOW), strict=True))
    assert row == {
        "host": "spark-1",
        "state": "verified",
        "release": "01234567",
        "image tag": "2026-06-11-pr41703",
        "digest": "09c83d000000",
        "weights": "ccccccc",
        "profile": "agentic",
        "drafter": "flash_attn",
        "up": "3 d",
        "acceptance": "57 % of 60 %",
        "tok/s": "88.1",
        "KV": "12 %",
        "memory": "21.0 GiB",
        "last rollout": "committed 2026-11-20T11:03",
    }


@pytest.mark.parametrize("watch", [{"release": "another", "acceptance": 0.1, "tokens_per_second": 3}, None])
def test_figures_of_another_release_are_not_shown(watch: dict[str, Any] | None) -> None:
    row = dict(zip(HEADINGS, row_of("spark-1", {"fleet": {**FLEET, "watch": watch}}, NOW), strict=True))
    assert (row["acceptance"], row["tok/s"], row["KV"]) == ("60 % proven", "–", "–")


def test_a_bare_host_shows_dashes() -> None:
    row = row_of("spark-9", {"fleet": {}})
    assert row[:2] == ("spark-9", "unprovisioned")
    assert set(row[2:]) == {"–"}


def test_what_is_odd_is_said_below() -> None:
    fleet = {
        **FLEET,
        "serving": {"unit": "active", "drift": ["unit: edited"]},
        "watch": {"verdict": "bad", "findings": {"memory": "1.0 GiB available"}},
        "activation": {"release": ID, "operator": "ann@desk", "alive": False},
        "last": {"state": "reverted", "error": "acceptance-short: 0.0 %\nlog"},
        "out_of_rotation": True,
    }
    assert remarks(seen("a", {"fleet": fleet}), "a") == [
        "a: drift: unit: edited",
        "a: watch: 1.0 GiB available",
        f"a: release {ID} by ann@desk; its worker is gone, the next deploy takes over",
        "a: last rollout reverted: acceptance-short: 0.0 %",
        "a: out of its rotation",
    ]


def test_columns_line_up() -> None:
    lines = table(HEADINGS, [row_of("spark-1", NODE), row_of("a-much-longer-name", {"fleet": {}})])
    starts = {line.index("verified") if "verified" in line else line.index("unprovisioned") for line in lines[1:]}
    assert len(starts) == 1


@pytest.mark.parametrize("width", [80, 120, 160, None])
def test_a_narrow_terminal_loses_columns_and_no_word_is_cut(width: int | None) -> None:
    rows = [row_of("spark-01.local", NODE, NOW), row_of("spark-02.local", {"error": "x"})]
    lines = fitted(HEADINGS, rows, width, DISPENSABLE)
    assert width is None or max(map(len, lines)) <= width
    for heading in ("host", "state", "image tag", "acceptance"):
        assert heading in lines[0]
    assert ("digest" in lines[0]) is (width is None)
    assert ("profile" in lines[0]) is (width in (160, None))
    assert "2026-06-11-pr41703" in lines[1]


def test_a_hundred_hosts_stay_readable() -> None:
    nodes = {f"spark-{number:03}": NODE for number in range(1, 101)}
    nodes["spark-050"] = {"error": "it cannot be reached"}
    nodes["spark-077"] = {"fleet": {**FLEET, "serving": {"unit": "active", "drift": ["another image"]}}}
    slow = {**FLEET, "watch": {**FLEET["watch"], "tokens_per_second": 9.5, "acceptance": 0.41}}
    nodes["spark-099"] = {**NODE, "fleet": slow}
    rows = arranged([row_of(name, node, NOW) for name, node in nodes.items()])
    assert [row[:2] for row in rows] == [
        ("spark-050", "no answer"),
        ("spark-077", "drift"),
        ("98: spark-001 … spark-100", "verified"),
    ]
    assert rows[-1][HEADINGS.index("tok/s")] == "9.5 … 88.1"
    usual = rows[-1][HEADINGS.index("acceptance")].partition(" … ")[2]
    assert rows[-1][HEADINGS.index("acceptance")] == f"41 … {usual}"
    assert max(map(len, fitted(HEADINGS, rows, 80, DISPENSABLE))) <= 80
    few = [row_of(f"spark-{number}", NODE, NOW) for number in range(4)]
    assert arranged(few) == few


def test_history_is_one_story_of_all_hosts() -> None:
    rows = {
        name: [Ended(t=t, release=ID, state=state, **more)]
        for name, t, state, more in (
            ("b", "2026-11-02T10:00:00.000Z", "reverted", {"error": "0.0 %\nlog", "operator": "ann@desk"}),
            ("a", "2026-11-03T10:00:00.000Z", "committed", {"intent": "rollback", "seconds": 240.2}),
            ("c", "2026-11-01T10:00:00.000Z", "committed", {}),
        )
    }
    heading, first, second, why, third = history_lines(rows, None)
    assert heading.split() == ["when", "host", "who", "what", "from", "to", "outcome", "took"]
    assert [line.split()[1] for line in (first, second, third)] == ["c", "b", "a"]
    assert second.split()[2:] == ["ann@desk", "deploy", "nothing", "01234567", "reverted", "–"]
    assert why == "    0.0 %"
    assert third.split()[3] == "rollback"
    assert third.endswith("240 s")
    assert max(map(len, history_lines(rows, 60))) <= 60


def test_long_lines_are_wrapped_between_words_and_a_pipe_gets_them_whole() -> None:
    line = "  next: \x1b[31msystemctl enable --no-reload nvidia-cdi-refresh.path\x1b[0m"
    assert wrapped(f"short\n{line}\n", None) == f"short\n{line}\n"
    assert wrapped(f"\x1b[32mshort\x1b[0m\n{line}\n", 40).split("\n") == [
        "\x1b[32mshort\x1b[0m",
        "  next: systemctl enable --no-reload",
        "      nvidia-cdi-refresh.path",
        "",
    ]
