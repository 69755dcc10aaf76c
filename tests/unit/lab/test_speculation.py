"""The acceptance arithmetic against the figures that the model card publishes."""

from __future__ import annotations

import pytest

from tests.lab.engine.speculation import Counters, Drafter

FIXED = Drafter(fixed=True, prefix_caching=True)
UNFIXED = Drafter(fixed=False, prefix_caching=False)


@pytest.mark.parametrize(
    ("drafter", "prompt_tokens", "served", "rate"),
    [
        (FIXED, 50, 0, 0.60),
        (FIXED, 9000, 0, 0.433),
        (FIXED, 20000, 1000, 0.433),
        (FIXED, 4756, 0, 0.5165),
        (UNFIXED, 50, 10_000, 0.45),
        (UNFIXED, 2000, 0, 0.45),
        (UNFIXED, 2001, 0, 0.03),
        (Drafter(fixed=False, prefix_caching=True), 50, 10, 0.25),
        (Drafter(fixed=False, prefix_caching=True), 50, 100, 0.0),
        (Drafter(fixed=True, prefix_caching=True, acceptance=0.05), 50, 0, 0.05),
        (Drafter(fixed=True, prefix_caching=True, acceptance=0.30), 9000, 0, 0.2165),
        (Drafter(fixed=True, prefix_caching=True, long_acceptance=0.02), 9000, 0, 0.02),
        (Drafter(fixed=True, prefix_caching=True, decay=0.1), 50, 3, 0.30),
    ],
)
def test_rate(drafter: Drafter, prompt_tokens: int, served: int, rate: float) -> None:
    assert drafter.rate(prompt_tokens, served) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize(("rate", "length"), [(0.60, 7.0), (0.433, 5.33), (0.45, 5.5), (0.0, 1.0), (1.0, 11.0)])
def test_mean_acceptance_length_follows_from_the_rate(rate: float, length: float) -> None:
    counters = Counters.of(10)
    for _ in range(1000):
        counters.step(rate)
    assert counters.accepted / counters.draft_tokens == pytest.approx(rate, abs=1e-3)
    assert 1 + counters.accepted / counters.drafts == pytest.approx(length, abs=0.01)
    assert sum(counters.positions) == counters.accepted
    assert counters.positions == sorted(counters.positions, reverse=True)
