"""What the watch decides over time: shapes of counters, power and silence, most of them of engines that are well.

Each situation is a course of looks, with the figures of a GB10 or of an H200.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknode.base import parse
from sparknode.engine.client import in_flight
from sparknode.state.release import WatchRules
from sparknode.watchdog import liveness
from sparknode.watchdog.liveness import Glimpse, Pulse
from sparknode.watchdog.lookout import beat_of
from tests.unit.sparknode.builders import WATCH

RULES = WatchRules(**WATCH)
MINUTE = 60.0
# What a busy GB10, an idle one, a hung one and one in the power wedge draw.
BUSY_W, IDLE_W, HUNG_W, WEDGED_W = 45.0, 8.0, 21.0, 13.0


@dataclass(frozen=True)
class Look:
    """One look: how long after the one before, and what it saw."""

    running: float = 0.0
    tokens: float = 100.0
    kv: float = 0.0
    power: float | None = BUSY_W
    waiting: float = 0.0
    after: float = MINUTE
    answers: bool = True
    # What comes of the one-token question, where it is asked: an answer, silence, or something that tells nothing.
    token: bool | None = True


Course = list[Look]


@dataclass(frozen=True)
class Situation:
    course: Course
    # The look, counted from 1, by which the engine has to be restarted at the latest; None where it never may be.
    by: int | None = None
    # Before this look nothing may be done.
    not_before: int = 1
    reason: str = ""
    rules: WatchRules = field(default=RULES)


def decided(situation: Situation) -> tuple[int, str] | None:
    """The first look that restarts the engine, and why."""
    t, pulse = 1000.0, None
    for number, look in enumerate(situation.course, 1):
        t += look.after
        beat = (look.tokens, look.tokens, look.tokens, look.kv, look.running, look.waiting) if look.answers else ()
        requests = look.running + look.waiting if look.answers else None
        seen = Glimpse(t, look.answers, requests, beat, look.power)
        pulse = liveness.after(pulse, seen, situation.rules.stalled_s, lambda look=look: look.token)  # type: ignore[misc]
        cure = liveness.stalled(pulse, look.power, situation.rules)
        if cure:
            return number, cure
    return None


def course(minutes: int, **values: object) -> Course:
    """The same look each minute; a list or a function gives a value for each of them."""
    found = []
    for minute in range(minutes):
        given = {}
        for name, value in values.items():
            given[name] = value(minute) if callable(value) else value[minute] if isinstance(value, list) else value
        found.append(Look(**given))  # type: ignore[arg-type]
    return found


def rising(step: float = 1000.0, start: float = 100.0) -> object:
    return lambda minute: start + step * minute


IDLE = Look(power=IDLE_W)
WELL: dict[str, Course] = {
    "idle for an hour": course(60, power=IDLE_W),
    "idle for an hour, the power unknown": course(60, power=None),
    "one stream": course(60, running=1.0, tokens=rising(6000)),
    "sixty-four streams": course(60, running=64.0, tokens=rising(120_000), kv=0.9, power=90.0),
    "one prompt of 30,000 tokens, chunk by chunk": course(8, running=1.0, kv=lambda m: 0.05 * (m + 1)),
    "the same, the power unknown": course(8, running=1.0, kv=lambda m: 0.05 * (m + 1), power=None),
    "the same on a GPU in the power wedge": course(8, running=1.0, kv=lambda m: 0.05 * (m + 1), power=WEDGED_W),
    "160k tokens, 133 s, each request cold": course(3, running=1.0, kv=[0.2, 0.5, 0.8], power=80.0),
    "262k tokens in 290 s": course(6, running=1.0, kv=[0.1, 0.25, 0.4, 0.55, 0.7, 0.85], power=80.0),
    "a prefill in one piece that takes five minutes": course(6, running=1.0, kv=0.6, power=80.0),
    "a prefill in one piece, the power unknown": course(6, running=1.0, kv=0.6, power=None),
    "a kernel that is compiled within a request for 300 s": course(6, running=1.0, power=38.0),
    "a kernel that is compiled, the power unknown": course(6, running=1.0, power=None),
    "requests that wait while one long prompt is read": course(
        10, running=1.0, waiting=lambda m: float(m), kv=lambda m: 0.03 * m
    ),
    "a queue that is full": course(30, running=64.0, waiting=200.0, tokens=rising(50_000), kv=1.0, power=90.0),
    "streams that end and begin between looks": course(30, running=4.0, tokens=rising(4000), kv=0.1),
    "the same prompt again and again": course(30, running=1.0, tokens=rising(300), kv=0.25),
    "one request each ten minutes": [
        look for _ in range(6) for look in [*course(9, power=IDLE_W), Look(1.0, 100.0, 0.1, IDLE_W)]
    ],
    "a request a moment before the look, after ten minutes without one": [
        IDLE,
        Look(1.0, power=12.0, after=600.0),
        Look(1.0, 700.0),
    ],
    "the host slept for eight hours, idle": [IDLE, IDLE, Look(1.0, power=12.0, after=8 * 3600.0), Look(0.0, 900.0)],
    "the host slept for eight hours in the middle of a stream": [
        Look(1.0, 500.0),
        Look(1.0, 500.0, power=12.0, after=8 * 3600.0),
        Look(1.0, 900.0),
    ],
    "the watch's timer was stopped for an hour in the middle of a stream": [
        Look(1.0, 500.0),
        Look(1.0, 500.0, power=12.0, after=3600.0),
        Look(1.0, 900.0),
    ],
    "the host froze for two minutes under memory pressure": [
        Look(8.0, 500.0),
        Look(8.0, 500.0, power=20.0, after=120.0),
        Look(8.0, 4000.0),
    ],
    "the monotonic clock begins anew with a boot": [Look(1.0, 500.0, after=9000.0), Look(1.0, 500.0, after=-8900.0)],
    "looks that come 80 s apart": course(30, running=1.0, tokens=rising(), after=80.0),
    "looks in a hurry": course(60, running=1.0, tokens=rising(10), after=2.0),
    "a stream that stands still for one look": course(5, running=1.0, tokens=[1, 2, 2, 3, 4], power=WEDGED_W),
    "standing still twice, not in a row": course(6, running=1.0, tokens=[1, 1, 2, 2, 3, 3], power=WEDGED_W),
    "24 streams whose core is stopped for 13 s": [Look(24.0, 9.0), Look(24.0, 9.0, after=13.0), Look(24.0, 999.0)],
    "a counter that an engine's restart set back": course(4, running=1.0, tokens=[9000, 9500, 100, 700]),
    "metrics that fail once under load": [
        Look(9.0, 100.0),
        Look(answers=False),
        Look(9.0, 5000.0),
        Look(answers=False),
        Look(9.0, 9000.0),
    ],
    "an API that is busy for four minutes with one request's pictures": [
        Look(3.0, 100.0),
        *course(4, answers=False),
        Look(3.0, 900.0),
    ],
    "an engine that loads for 20 minutes and never answered yet": course(20, answers=False, power=IDLE_W),
    "idle, and one question for a token is lost": course(20, power=IDLE_W, token=lambda minute: minute != 5),
    "idle, and a kernel is compiled for the first client for 300 s": [
        *course(4, power=IDLE_W),
        *course(5, power=IDLE_W, token=False),
        *course(5, tokens=rising(50, 200.0)),
    ],
    "idle, and every question is refused for want of a key": course(60, power=IDLE_W, token=None),
    "requests that wait for their grammar while nothing runs": course(5, waiting=2.0, power=38.0),
    "the last stream ends between two looks": [
        Look(1.0, 500.0),
        Look(0.0, 900.0, power=IDLE_W),
        *course(9, tokens=900.0),
    ],
    "a stream that makes one token a minute": course(30, running=1.0, tokens=rising(1), power=WEDGED_W),
    "preempted for want of cache, over and over": course(
        20, running=lambda m: float(m % 3 + 1), waiting=lambda m: float(3 - m % 3), kv=0.99
    ),
    "drafts that are all refused": course(30, running=1.0, tokens=rising(1500)),
    "an engine without any counters": [Look(0.0, 0.0)] * 1,
}
SICK: dict[str, Situation] = {
    "hung with requests, little power": Situation(course(9, running=3.0, power=HUNG_W), 3, 3, "3 requests run"),
    "hung with requests at the H200's 124 W": Situation(course(9, running=24.0, power=124.0), 7, 7, "24 requests run"),
    "hung with requests, the power unknown": Situation(course(9, running=3.0, power=None), 7, 7, "3 requests run"),
    "hung in the middle of a prefill": Situation(
        [*course(3, running=1.0, kv=lambda m: 0.1 * m), *course(9, running=1.0, kv=0.2, power=HUNG_W)], 6, 5
    ),
    "hung after hours of work": Situation(
        [*course(200, running=8.0, tokens=rising()), *course(9, running=8.0, tokens=200_000.0, power=HUNG_W)], 204, 203
    ),
    "hung with a queue that does not move": Situation(course(9, running=64.0, waiting=90.0, power=HUNG_W), 3, 3),
    "hung while nobody was there, a client comes and waits": Situation(
        [*course(3, power=IDLE_W), *course(9, power=IDLE_W, token=False)], 11, 8, "nothing ran, and"
    ),
    "hung while idle, the power unknown": Situation(
        [*course(3, power=None), *course(9, power=None, token=False)], 11, 8, "nothing ran, and"
    ),
    "hung while idle, the questions lost from the first one on": Situation(course(12, token=False), 10, 8),
    "an API that takes connections and never answers, idle before": Situation(
        [IDLE, IDLE, *course(9, answers=False, power=IDLE_W)], 9, 8, "answered nothing at all for"
    ),
    "an API that never answers, busy before": Situation(
        [Look(5.0, 900.0), *course(9, answers=False, power=BUSY_W)], 8, 8, "answered nothing at all for"
    ),
    "hung, and the host slept meanwhile": Situation(
        [Look(1.0, power=HUNG_W), Look(1.0, power=HUNG_W, after=40_000.0), *course(3, running=1.0, power=HUNG_W)], 3, 3
    ),
    "hung, seen by looks 80 s apart": Situation(course(9, running=1.0, power=HUNG_W, after=80.0), 3, 3),
    "a core stopped for good under 24 streams": Situation(
        [Look(24.0, 9.0, power=500.0), *course(9, running=24.0, tokens=9.0, power=124.0)], 7, 7
    ),
    "hung once more after it had moved": Situation(
        [
            *course(2, running=1.0, power=HUNG_W),
            Look(1.0, 101.0, power=HUNG_W),
            *course(4, running=1.0, tokens=101.0, power=HUNG_W),
        ],
        5,
        5,
    ),
}


def test_the_table_is_large_and_mostly_of_engines_that_are_well() -> None:
    assert len(WELL) + len(SICK) >= 40
    assert len(WELL) >= len(SICK)


@pytest.mark.parametrize("name", WELL)
def test_an_engine_that_is_well_is_left_alone(name: str) -> None:
    assert decided(Situation(WELL[name])) is None


@pytest.mark.parametrize("name", SICK)
def test_an_engine_that_hangs_is_found_in_time_and_not_before(name: str) -> None:
    situation = SICK[name]

    found = decided(situation)

    assert found is not None
    assert situation.by is not None
    assert situation.not_before <= found[0] <= situation.by
    assert found[1].startswith(situation.reason) or situation.reason in found[1]


def test_a_hang_that_begins_while_idle_is_found_within_ten_minutes_whenever_it_begins() -> None:
    for healthy in range(1, 12):
        found = decided(Situation([*course(healthy, power=IDLE_W), *course(15, power=IDLE_W, token=False)]))
        assert found is not None
        assert found[0] - healthy <= 10


@given(
    st.lists(
        st.builds(
            Look,
            running=st.sampled_from([0.0, 1.0, 24.0]),
            kv=st.just(0.3),
            power=st.sampled_from([None, 5.0, 80.0]),
            after=st.floats(-1e5, 1e5),
            token=st.sampled_from([True, None]),
        ),
        min_size=2,
        max_size=2,
    )
)
def test_two_looks_never_make_a_hang(looks: list[Look]) -> None:
    assert decided(Situation(looks)) is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 200)), max_size=30))
def test_an_engine_that_moves_at_each_look_is_never_restarted(steps: list[tuple[bool, float]]) -> None:
    looks = [
        Look(running=float(busy), tokens=float(number), power=None, after=after, token=False)
        for number, (busy, after) in enumerate(steps)
    ]
    assert decided(Situation(looks)) is None


# The recorded metrics.

METRICS = Path(__file__).parents[3] / "fixtures/gpu/metrics"


def recorded(name: str) -> list[parse.Sample]:
    return parse.metrics((METRICS / name).read_text())


@pytest.mark.parametrize("name", sorted(path.name for path in METRICS.iterdir()))
def test_the_recorded_metrics_have_a_beat_and_requests(name: str) -> None:
    assert len(beat_of(recorded(name))) == 6
    assert in_flight(recorded(name)) == (16.0 if "during" in name else 0.0)


def test_a_recorded_load_moves_the_beat_and_an_engine_that_counts_nothing_has_none() -> None:
    fresh, loaded = (beat_of(recorded(name)) for name in ("dflash-fresh.txt", "dflash-load16-during.txt"))
    assert fresh != loaded
    assert beat_of([]) == ()


def pulses() -> Iterator[Pulse]:
    before: Pulse | None = None
    for number in range(3):
        before = liveness.after(before, Glimpse(60.0 * number, True, 1.0, (1.0,), None), 120.0, lambda: None)
        yield before


def test_time_counts_only_between_two_looks() -> None:
    assert [pulse.frozen_s for pulse in pulses()] == [0.0, 60.0, 120.0]


def every(courses: Iterable[Course]) -> int:
    return sum(len(one) for one in courses)


def test_most_looks_of_the_table_are_at_engines_that_are_well() -> None:
    assert every(WELL.values()) > every(situation.course for situation in SICK.values())
