"""In which order hosts take a release, and how many at once. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def plan_waves(hosts: Sequence[str], canaries: Collection[str], batch_size: int) -> list[list[str]]:
    """Return the waves: canaries first, then the others, both in inventory order, `batch_size` hosts a wave.

    A wave never mixes canaries with other hosts, so that a bad release stops before it reaches the fleet.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected 1 or more")
    first = [host for host in hosts if host in canaries]
    rest = [host for host in hosts if host not in canaries]
    return [group[start : start + batch_size] for group in (first, rest) for start in range(0, len(group), batch_size)]
