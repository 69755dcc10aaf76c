"""The drafter's arithmetic: how many drafted tokens the target accepts, and what that does to the counters."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Short prompts reach the first figure, prompts of LONG_TOKENS and more the second; between them it falls evenly.
SHORT_ACCEPTANCE, LONG_ACCEPTANCE = 0.60, 0.433
SHORT_TOKENS, LONG_TOKENS = 512, 9000
# Before the drafter fixes: no sliding window, so nothing useful beyond 2,000 tokens.
UNFIXED_SHORT, UNFIXED_LONG, UNFIXED_LIMIT = 0.45, 0.03, 2000
# Before the fixes, with prefix caching: acceptance lost by each request served.
UNFIXED_DECAY = 0.02


@dataclass(frozen=True)
class Drafter:
    """How a drafter does on one image tag."""

    fixed: bool
    prefix_caching: bool
    acceptance: float | None = None
    long_acceptance: float | None = None
    decay: float | None = None

    def rate(self, prompt_tokens: int, requests_served: int) -> float:
        """The share of drafted tokens that is accepted, from 0 to 1."""
        short, long = self._ends()
        if self.fixed or self.long_acceptance is not None:
            share = (prompt_tokens - SHORT_TOKENS) / (LONG_TOKENS - SHORT_TOKENS)
            base = short + (long - short) * min(max(share, 0.0), 1.0)
        else:
            base = long if prompt_tokens > UNFIXED_LIMIT else short
        return min(max(base - self._decay() * requests_served, 0.0), 1.0)

    def _ends(self) -> tuple[float, float]:
        usual = (SHORT_ACCEPTANCE, LONG_ACCEPTANCE) if self.fixed else (UNFIXED_SHORT, UNFIXED_LONG)
        short = usual[0] if self.acceptance is None else self.acceptance
        scaled = usual[1] * short / usual[0]
        return short, scaled if self.long_acceptance is None else self.long_acceptance

    def _decay(self) -> float:
        if self.decay is not None:
            return self.decay
        return 0.0 if self.fixed or not self.prefix_caching else UNFIXED_DECAY


@dataclass
class Counters:
    """vLLM's own counters. Mean acceptance length = 1 + accepted / drafts."""

    positions: list[int]
    drafts: int = 0
    draft_tokens: int = 0
    accepted: int = 0
    _carry: float = 0.0

    @classmethod
    def of(cls, draft_length: int) -> Counters:
        return cls([0] * draft_length)

    def step(self, rate: float) -> int:
        """One draft: returns how many tokens it yields, the target's own among them."""
        length = len(self.positions)
        # The fraction is carried over, so that the counted rate is the wanted one after a few drafts.
        wanted = self._carry + rate * length
        kept = min(math.floor(wanted + 1e-9), length)
        self._carry = wanted - kept
        self.drafts += 1
        self.draft_tokens += length
        self.accepted += kept
        for position in range(kept):
            self.positions[position] += 1
        return kept + 1
