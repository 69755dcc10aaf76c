"""The journal: durable lines out, whatever is readable in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknode.base.paths import Paths
from sparknode.state import journal


def record(state: str, activation: str = "a", **more: Any) -> dict[str, Any]:
    return {"t": "2026-11-23T10:00:00.123Z", "activation": activation, "release": "r", "state": state, **more}


def test_what_is_appended_is_read_in_order(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    for state in ("leased", "draining"):
        journal.append(paths, record(state))

    assert [found["state"] for found in journal.read(paths)] == ["leased", "draining"]


def test_a_line_stands_on_the_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)

    journal.append(Paths(tmp_path), record("leased"))

    assert len(synced) == 2, "the file, and the folder that names it for the first time"


def test_a_torn_line_swallows_nothing_that_follows(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    journal.append(paths, record("leased"))
    with paths.journal.open("ab") as stream:
        stream.write(b'{"t":"2026-11')

    journal.append(paths, record("reverting"))

    assert [found["state"] for found in journal.read(paths)] == ["leased", "reverting"]


def test_a_reader_goes_on_where_it_stopped_and_waits_for_whole_lines(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    journal.append(paths, record("leased"))
    first, offset = journal.read_from(paths, 0)
    line = json.dumps(record("draining")).encode() + b"\n"
    with paths.journal.open("ab") as stream:
        stream.write(line[:10])
    torn, offset = journal.read_from(paths, offset)
    with paths.journal.open("ab") as stream:
        stream.write(line[10:])

    rest, _ = journal.read_from(paths, offset)

    assert [found["state"] for found in first + torn + rest] == ["leased", "draining"]


def test_no_journal_has_no_records(tmp_path: Path) -> None:
    assert journal.read(Paths(tmp_path)) == []


def test_of_a_long_journal_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(tmp_path)
    for number in range(50):
        journal.append(paths, record("leased", str(number)))

    monkeypatch.setattr(journal, "TAIL_BYTES", 500)
    found = journal.read(paths)

    assert 0 < len(found) < 50
    assert found[-1]["activation"] == "49"


def test_lines_of_the_watch_hide_no_activation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(tmp_path)
    for number in range(3):
        journal.append(paths, record("committed", str(number)))
    for _ in range(400):
        journal.event(paths, 0.0, "watch", note="memory")
    monkeypatch.setattr(journal, "TAIL_BYTES", 500)
    assert [found["activation"] for found in journal.read(paths)] == ["0", "1", "2"]


@given(
    st.lists(
        st.sampled_from([b"\n", b"{}\n", b'{"state":1}\n', b"\xff\xfe\n", b"[" * 3000 + b"\n"]) | st.binary(max_size=40)
    )
)
def test_garbage_between_good_lines_costs_only_itself(noise: list[bytes]) -> None:
    good = [json.dumps(record("leased", str(number))).encode() + b"\n" for number in range(len(noise))]
    data = b"".join(line + part.rstrip(b"\n") + b"\n" for line, part in zip(good, noise, strict=True))

    found = journal.parse_lines(data)

    assert [item["activation"] for item in found if item["state"] == "leased"] == [str(at) for at in range(len(noise))]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_journal(data: bytes) -> None:
    for attempt in journal.attempts(journal.parse_lines(data)):
        assert attempt.activation
        assert attempt.forth.figures is not None


@pytest.mark.parametrize(
    ("unit", "rows", "kept"),
    [
        ("tok/s", [(450.0, "pass"), (259.0, "pass")], 450.0),
        ("tok/s", [(259.0, "pass"), (450.0, "pass"), (300.0, "pass")], 450.0),
        ("s", [(0.02, "pass"), (1.4, "pass")], 0.02),
        # What decays is kept as it ended.
        ("ratio", [(0.6, "pass"), (0.4, "pass")], 0.4),
        ("tokens", [(4.0, "pass"), (7.0, "pass")], 7.0),
        ("tok/s", [(450.0, "pass"), (20.0, "not-judged")], 450.0),
        ("tok/s", [(500.0, "not-judged"), (450.0, "pass")], 450.0),
        ("tok/s", [(20.0, "not-judged"), (40.0, "not-judged")], 40.0),
        ("tok/s", [(450.0, "pass"), (None, "no-data")], None),
    ],
)
def test_of_a_speed_the_best_round_counts_and_of_the_rest_the_last(
    unit: str, rows: list[tuple[float | None, str]], kept: float | None
) -> None:
    records = [
        {**record("soaking"), "gate": {"name": "x", "figure": figure, "unit": unit, "verdict": verdict}}
        for figure, verdict in rows
    ]
    (attempt,) = journal.attempts(records)
    assert attempt.forth.figures["x"]["figure"] == kept


@pytest.mark.parametrize("cut", range(0, 90, 7))
def test_every_prefix_of_a_journal_keeps_its_whole_lines(cut: int) -> None:
    whole = b"".join(json.dumps(record(state)).encode() + b"\n" for state in ("leased", "starting"))

    found = journal.parse_lines(whole[: len(whole) - cut])

    assert [item["state"] for item in found] == ["leased", "starting"][: len(found)]


def test_one_activation_and_the_last_ended_one() -> None:
    records = [record("leased", "a"), record("committed", "a"), record("leased", "b"), record("starting", "b")]

    found, ended = journal.attempt(records, "b"), journal.last_ended(records)

    assert found is not None
    assert (found.state, found.ended) == ("starting", False)
    assert ended is not None
    assert ended.activation == "a"
    assert journal.attempt(records, "c") is None


@pytest.mark.parametrize(
    ("states", "ended_by"),
    [
        (["leased", "committed", "committed"], 1),
        (["starting", "reverting", "reverted", "reverted", "reverted"], 2),
        (["committed", "reverting", "reverting"], 2),
        (["committed", "reverting", "reverted"], 2),
        (["starting", "starting"], 1),
    ],
)
def test_what_follows_the_line_that_ended_it_are_notes(states: list[str], ended_by: int) -> None:
    records = [{**record(state), "at": at} for at, state in enumerate(states)]
    assert journal.Attempt(records).last["at"] == ended_by


def test_the_page_says_of_each_state_what_the_table_says() -> None:
    page = (Path(__file__).parents[4] / "docs/activation.md").read_text()
    rows = [f"| `{one.name}` | {one.current} | {one.cut_off} | `{one.ends}` |" for one in journal.TABLE]
    assert [row for row in rows if row not in page] == []
    assert page.count("\n| `leased` |") == 2


def test_a_large_journal_is_put_aside_and_its_last_activations_stay(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    for number in range(40):
        for state in ("leased", "committed"):
            journal.append(paths, {**record(state, f"a{number}"), "note": "x" * 60_000})
    whole = paths.journal.read_bytes()
    assert len(whole) > journal.ROTATE_BYTES

    journal.event(paths, 0.0, "watch", note="one more")

    found = journal.attempts(journal.read(paths))
    assert [one.activation for one in found] == [f"a{number}" for number in range(40 - journal.ENOUGH - 1, 40)]
    assert paths.journal.stat().st_size < journal.ROTATE_BYTES
    assert paths.former_journal.read_bytes().startswith(whole)


def test_a_full_disk_puts_rotation_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(tmp_path)
    journal.append(paths, {**record("leased"), "note": "x" * journal.ROTATE_BYTES})
    before = paths.journal.read_bytes()
    monkeypatch.setattr(journal, "atomic_write", full)

    journal.rotate(paths)

    assert paths.journal.read_bytes() == before


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("seconds", [0.0, 1_795_000_000.123, 1_795_000_000.9996])
def test_times_go_there_and_back(seconds: float) -> None:
    assert journal.seconds_of(journal.timestamp(seconds)) == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize("text", [None, "", "yesterday", 5, "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: object) -> None:
    assert journal.seconds_of(text) is None
