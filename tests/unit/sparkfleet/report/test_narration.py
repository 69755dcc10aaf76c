"""Which lines of a node become which printed lines; the node's own code provides the lines of whole stories."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.report.narration import SIGN_S, Narration, Said
from sparknode.state.journal import STATES
from tests.unit.sparknode.acting import NEW, OLD, activate
from tests.unit.sparknode.builders import write_model
from tests.unit.sparknode.models.test_stage import IMAGE, SOURCE, incoming
from tests.unit.sparknode.models.test_stage import run as stage
from tests.unit.sparknode.world import Engine, World

PASSES = "probing: acceptance-short pass: 60.0 % of drafted tokens accepted, expected at least 30.0 %"
FAILS = "probing: acceptance-long fail: 0.0 % of drafted tokens accepted, expected at least 20.0 %; asked twice"
AGAIN = "probing: ttft pass: 1.2 s; asked again after it failed once (3.1 s, expected at most 2 s)"
BESIDE = "probing: tokens-per-second-short not-judged: 3.1 tok/s; not judged, as 4 requests ran meanwhile"
NO_DATA = "probing: power no-data: nvidia-smi names no power, clock and utilization (exit code 6)"
WENT_BACK = "reverted: acceptance-long: 0.0 %; release e9fab9a0 serves again and is verified"
OUT = "committed: STILL OUT OF ROTATION: the engine does not answer"
REFUSED = "sparknode activate: refused: release x is not staged here; stage it again"
CHECKING = "model a/b@1d7e8dbc: checking 3.20 of 18.00 GB, 800 MB/s, 19 s left"
PULLING = "image ghcr.io/a/b@sha256:12: pulling"
LAYERS = [
    "  sha256:12: Pulling from a/b",
    "  4f4fb700ef54: Pull complete",
    "  Digest: sha256:12",
    "  Status: Downloaded newer image for a/b",
]

# What comes from the node, and what is printed of it: s for a step, e for an end, a for an alarm.
TABLE: dict[str, tuple[list[str], list[str]]] = {
    "a phase is its last line": (
        ["draining: waiting at most 60 s for requests to end", "draining: no request left after 2 s", "stopping: x"],
        ["s draining: no request left after 2 s", "s stopping: x"],
    ),
    "how far the engine is gives way to how long it took": (
        [
            "starting: engine has loaded for 20 s of at most 90 s (70 s left)",
            "starting: ready pass: answers after 41 s",
        ],
        ["s starting: answers after 41 s"],
    ),
    "gates that pass are one line": (
        ["probing: every gate", "probing: health pass: HTTP 200", PASSES],
        ["s probing: 2 gates pass: acceptance rate 60.0 %"],
    ),
    "rounds of a soak show the range": (
        [PASSES.replace("probing", "soaking"), PASSES.replace("probing: acc", "soaking: acc").replace("60.0", "9.5")],
        ["s soaking: 1 gate passes in 2 rounds: acceptance rate 9.5–60.0 %"],
    ),
    "a gate that fails is whole, after those that passed": (
        [PASSES, FAILS],
        ["s probing: 1 gate passes: acceptance rate 60.0 %", f"a {FAILS}"],
    ),
    "a gate that passed at second try is whole": ([AGAIN], [f"s {AGAIN}"]),
    "a gate without data is whole": ([NO_DATA], [f"a {NO_DATA}"]),
    "what was not judged is counted": (
        [PASSES, BESIDE],
        ["s probing: 1 gate passes, 1 not judged while others are served: acceptance rate 60.0 %"],
    ),
    "the end and what was there before it": (
        ["switching: x", "committed: release 1 is verified"],
        ["s switching: x", "e committed: release 1 is verified"],
    ),
    "an end with a reservation is an alarm": ([OUT], [f"a {OUT}"]),
    "the way back: its cause with the log, its steps, its end": (
        [
            "reverting: ready: /health gave nothing; last log lines:",
            "    CUDA error",
            "reverting: stopping: x",
            "reverting: 12 s of at most 130 s, 118 s left",
            "reverting: starting: y",
            "reverting: ready pass: the engine answers after 5 s",
            "reverting: health pass: HTTP 200",
            WENT_BACK,
        ],
        [
            "a reverting: ready: /health gave nothing; last log lines:",
            "a     CUDA error",
            "s reverting: 12 s of at most 130 s, 118 s left",
            "s reverting: starting: the engine answers after 5 s",
            "s reverting: 1 gate passes",
            f"a {WENT_BACK}",
        ],
    ),
    "a cause that begins with a state's name is no step": (
        ["reverting: starting: after 3 s the engine ended"],
        ["a reverting: starting: after 3 s the engine ended"],
    ),
    "one more try on the way back": (
        ["reverting: x", "reverting: once more, as there is no other release to roll back to: y"],
        ["a reverting: x", "a reverting: once more, as there is no other release to roll back to: y"],
    ),
    "what is not known is passed on": ([REFUSED, "a word"], [f"a {REFUSED}", "a a word"]),
    "staging is one line": (
        [CHECKING, "model a/b@1d7e: verified and in place (3 files, 18.00 GB)", PULLING, *LAYERS, "proof: release x"],
        ["s staged: release x"],
    ),
    "staging that fails is its reason": ([PULLING, *LAYERS[:2], "sparknode stage: z"], ["a sparknode stage: z"]),
    "a word in the middle of staging": (
        [PULLING, "  it is not the pinned image; pulling it instead", "image a/b: whether it gets a GPU is unknown"],
        ["a   it is not the pinned image; pulling it instead", "a image a/b: whether it gets a GPU is unknown"],
    ),
    "more lines of a step": (
        ["stopping: two orphans", "    pid 12", "switching: x"],
        ["s stopping: two orphans\n    pid 12", "s switching: x"],
    ),
    "what verifying found": ([CHECKING, "model a/b@1d7e: damaged: x"], ["a model a/b@1d7e: damaged: x"]),
}


def printed(lines: list[str], seconds: float = 0.0) -> list[str]:
    """What is printed of these lines, one heard each so many seconds."""
    story = Narration()
    said = [one for number, line in enumerate(lines) for one in story.hear(line, number * seconds)]
    return [f"{one.rank[0]} {one.text}" for one in [*said, *story.end()]]


@pytest.mark.parametrize("case", TABLE)
def test_lines_become_a_story(case: str) -> None:
    heard, expected = TABLE[case]
    assert printed(heard) == expected


def test_a_long_phase_gives_a_sign_each_minute() -> None:
    heard = [f"starting: engine has loaded for {second} s of at most 900 s (x)" for second in range(0, 180, 10)]
    assert printed(heard, seconds=10) == [f"s {heard[6]}", f"s {heard[12]}", f"s {heard[-1]}"]
    assert SIGN_S == 60


def test_a_long_pull_gives_a_sign_without_its_layers() -> None:
    assert printed([PULLING, *LAYERS, "proof: x"], seconds=30) == [f"s {PULLING}", f"s {PULLING}", "s staged: x"]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("os.fsync", lambda _: None)
    return World(tmp_path)


def lines_of(texts: list[str]) -> list[str]:
    return [line for text in texts for line in text.split("\n")]


def test_a_whole_activation_is_one_line_a_phase(node: World) -> None:
    node.stage(OLD)
    node.serve(OLD)
    node.stage(NEW)
    said = lines_of(activate(node).said)
    found = printed(said)
    assert len(said) > 40
    states = [line.split()[1].rstrip(":") for line in found]
    assert states == [state for state in STATES if state in states]
    assert {"leased", "starting", "probing", "soaking", "committed"} <= set(states)
    assert any("11 gates pass: acceptance rate 60.0 %, mean acceptance length 7.00, " in line for line in found)


def test_a_whole_way_back_shows_the_gate_and_the_cause_whole(node: World) -> None:
    node.stage(OLD)
    node.serve(OLD)
    node.stage(NEW, Engine(acceptance=0.0))
    said = lines_of(activate(node).said)
    alarms = [line.removeprefix("a ") for line in printed(said) if line.startswith("a ")]
    assert [line.partition(": ")[0] for line in alarms] == ["probing", "reverting", "reverted"]
    assert set(alarms) <= set(said)
    assert len(printed(said)) <= 16


def test_a_whole_staging_is_one_line(node: World) -> None:
    write_model(incoming(node))
    node.images[SOURCE] = dict(IMAGE)
    said = stage(node)
    assert len(said) > 6
    assert [line.partition(": ")[0] for line in printed(said)] == ["s staged"]


WORDS = st.sampled_from([*STATES, *"pass fail no-data acceptance-short tokens-per-second-short ready proof".split()])
MARKS = st.sampled_from([":", ": ", " ", "  ", "...", "1.2.3 %", ". tok/s"])
ANY_LINE = st.lists(WORDS | st.text(max_size=8) | MARKS, max_size=7)


@given(st.lists(ANY_LINE.map("".join), max_size=12))
def test_any_lines_can_be_told_and_no_failure_is_lost(lines: list[str]) -> None:
    story = Narration()
    heard = [one for at, line in enumerate(lines) for one in story.hear(line, float(at))]
    said = "\n".join(one.text for one in [*heard, *story.end()])
    for line in lines:
        if re.match("(reverted|failed)(: .*)?$", line) or re.match("probing: [a-z-]+ (fail|no-data): ", line):
            assert line in said


def test_nothing_is_printed_twice() -> None:
    story = Narration()
    assert story.hear("stopping: x", 0) == []
    assert story.end() == [Said("stopping: x")]
    assert story.end() == []
