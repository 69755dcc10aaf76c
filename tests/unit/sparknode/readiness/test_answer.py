"""Which answer each state of a node gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknode.readiness.answer import DRAINING, NOT_SERVING, READY, Standing, decide
from sparknode.state import journal

GOOD = Standing("a" * 16, "a" * 16, journal.COMMITTED, out_of_rotation=False, unit="active", hung=None, healthy=True)


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({}, READY, "verified"),
        ({"activation": None}, READY, "verified"),
        ({"activation": journal.REVERTED}, READY, "verified"),
        # Nothing is touched yet.
        ({"activation": journal.LEASED}, READY, "verified"),
        ({"activation": journal.DRAINING}, DRAINING, "draining"),
        # Streams that outlast the drain end with the engine, and not before.
        ({"activation": journal.STOPPING, "unit": "deactivating"}, DRAINING, "stopping"),
        ({"activation": journal.STOPPING, "healthy": False}, DRAINING, "stopping"),
        *(
            ({"activation": state}, NOT_SERVING, state)
            for state in (journal.RECLAIMING, journal.SWITCHING, journal.STARTING, journal.PROBING, journal.SOAKING)
        ),
        ({"activation": journal.REVERTING}, NOT_SERVING, "reverting"),
        ({"activation": journal.FAILED}, NOT_SERVING, "the last activation failed"),
        ({"current": None}, NOT_SERVING, "no release"),
        ({"verified": None}, NOT_SERVING, "has not passed its gates"),
        ({"verified": "b" * 16}, NOT_SERVING, "has not passed its gates"),
        ({"unit": None}, NOT_SERVING, "unknown"),
        ({"unit": "activating"}, NOT_SERVING, "activating"),
        ({"unit": "failed"}, NOT_SERVING, "failed"),
        # Somebody stopped it by hand, or the host goes down.
        ({"unit": "deactivating"}, DRAINING, "being stopped"),
        ({"healthy": False}, NOT_SERVING, "/health"),
        ({"hung": "stalled: no token for 130 s"}, NOT_SERVING, "no token for 130 s"),
        ({"out_of_rotation": True}, DRAINING, "out of rotation"),
        # Streams of an engine that makes no token would never end.
        ({"out_of_rotation": True, "hung": "stalled"}, NOT_SERVING, "stalled"),
        ({"out_of_rotation": True, "healthy": False}, NOT_SERVING, "/health"),
    ],
)
def test_each_state_has_its_answer(changes: dict[str, Any], status: int, says: str) -> None:
    answer = decide(replace(GOOD, **changes))
    assert answer.status == status
    assert says in answer.text


RELEASES = st.none() | st.sampled_from(["a" * 16, "b" * 16])


@given(
    st.builds(
        Standing,
        current=RELEASES,
        verified=RELEASES,
        activation=st.none() | st.sampled_from(journal.STATES),
        out_of_rotation=st.booleans(),
        unit=st.none() | st.sampled_from(["active", "activating", "deactivating", "failed", "inactive"]),
        hung=st.none() | st.just("silent"),
        healthy=st.booleans(),
    )
)
def test_requests_come_only_where_everything_speaks_for_it(standing: Standing) -> None:
    answer = decide(standing)
    good = (
        standing.current is not None
        and standing.current == standing.verified
        and standing.activation in {None, *journal.PROVEN, journal.LEASED}
        and standing.unit == "active"
        and standing.hung is None
        and standing.healthy
        and not standing.out_of_rotation
    )
    assert (answer.status == READY) is good
    assert answer.status in {READY, DRAINING, NOT_SERVING}
