"""Waves: canaries first, inventory order, never more than the batch size, every host exactly once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.waves import plan_waves


@pytest.mark.parametrize(
    ("hosts", "canaries", "batch_size", "waves"),
    [
        ([], [], 1, []),
        (["a", "b", "c"], [], 1, [["a"], ["b"], ["c"]]),
        (["a", "b", "c"], ["c"], 2, [["c"], ["a", "b"]]),
        (["a", "b", "c", "d", "e"], ["b"], 2, [["b"], ["a", "c"], ["d", "e"]]),
        (["a", "b"], ["a", "b"], 5, [["a", "b"]]),
        (["a", "b"], ["gone"], 5, [["a", "b"]]),
    ],
)
def test_waves(hosts: list[str], canaries: list[str], batch_size: int, waves: list[list[str]]) -> None:
    assert plan_waves(hosts, canaries, batch_size) == waves


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        plan_waves(["a"], [], 0)


@given(st.lists(st.text(min_size=1), unique=True), st.data(), st.integers(1, 9))
def test_every_host_is_in_exactly_one_wave_and_canaries_come_first(
    hosts: list[str], data: st.DataObject, batch_size: int
) -> None:
    canaries = data.draw(st.sets(st.sampled_from(hosts))) if hosts else set()
    waves = plan_waves(hosts, canaries, batch_size)
    flat = [host for wave in waves for host in wave]
    assert sorted(flat) == sorted(hosts)
    assert all(1 <= len(wave) <= batch_size for wave in waves)
    assert [host in canaries for host in flat] == sorted((host in canaries for host in hosts), reverse=True)
