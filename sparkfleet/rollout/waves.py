"""In which order hosts take a release, how many at once, and when another wave would leave too few serving. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparkfleet.inventory.pace import Pace, Share


@dataclass(frozen=True)
class Member:
    """A host that shall change, as it was found."""

    name: str
    canary: bool = False
    serving: bool = True
    healthy: bool = True


def share_of(share: Share, total: int) -> int:
    """Return how many of `total` hosts a share is, rounded down: a share limits what is at risk."""
    return int(share) if isinstance(share, int) else int(share.removesuffix("%")) * total // 100


def least_of(share: Share, total: int) -> int:
    """Return how many hosts a share is at least, rounded up: for a share that protects."""
    return int(share) if isinstance(share, int) else -(-int(share.removesuffix("%")) * total // 100)


def plan_waves(members: Sequence[Member], pace: Pace, total: int) -> list[list[str]]:
    """Return the waves, each host once.

    Hosts that are down or unhealthy go first: they cost no capacity, and a release that fails there has not taken a
    good host with it. Canaries go before the others. A wave never mixes these kinds. Each wave takes the ramp's next
    step, and the last step goes on; hosts that are down have a ramp of their own, because what they learn says nothing
    about a host under load. Of hosts that serve, a wave holds no more than may be out.
    """
    allowed_out = max(1, share_of(pace.max_unavailable, total))
    steps = [max(1, share_of(step, total)) for step in pace.batch_size]
    waves: list[list[str]] = []
    taken = {True: 0, False: 0}
    for group in _groups(members, pace.unhealthy_first):
        left = list(group)
        while left:
            size = {serving: steps[min(count, len(steps) - 1)] for serving, count in taken.items()}
            wave = _wave(left, size[left[0].serving], min(size[True], allowed_out))
            taken[any(member.serving for member in wave)] += 1
            waves.append([member.name for member in wave])
            chosen = {member.name for member in wave}
            left = [member for member in left if member.name not in chosen]
    return waves


def _groups(members: Sequence[Member], unhealthy_first: bool) -> Iterator[list[Member]]:
    """Yield the kinds in their order; without `unhealthy_first`, canaries and the others as the inventory has them."""
    kinds = [(False, False), (False, True), (True, True)] if unhealthy_first else [None]
    order = sorted(((kind, canary) for kind in kinds for canary in (True, False)), key=_place)
    for kind, canary in order:
        yield [
            member
            for member in members
            if member.canary == canary
            # A host that is down is not healthy, whatever it was called: nobody may fall between the kinds.
            and (kind is None or (member.healthy and member.serving, member.serving) == kind)
        ]


def _place(group: tuple[tuple[bool, bool] | None, bool]) -> tuple[bool, bool, bool]:
    kind, canary = group
    healthy, serving = kind or (False, False)
    return healthy, not canary, serving


def _wave(left: Sequence[Member], size: int, allowed_out: int) -> list[Member]:
    wave: list[Member] = []
    out = 0
    for member in left:
        if len(wave) == size:
            break
        if not member.serving or out < allowed_out:
            wave.append(member)
            out += member.serving
    return wave


def obstacle(wave: Sequence[str], serving: Mapping[str, bool], pace: Pace) -> str | None:
    """Say why this wave must not start, given which hosts serve now; None when it may."""
    out = [name for name in wave if serving.get(name)]
    if not out:
        return None
    total = len(serving)
    rest = [name for name, up in serving.items() if up and name not in out]
    least = least_of(pace.min_serving, total)
    if len(rest) < least:
        return f"{len(rest)} of {total} hosts would serve while {', '.join(out)} changes, and min_serving is {least}"
    down = [name for name, up in serving.items() if not up and name not in wave]
    allowed = max(1, share_of(pace.max_unavailable, total))
    if len(down) + len(out) > allowed:
        return (
            f"{', '.join(down)} {'does' if len(down) == 1 else 'do'} not serve, so that {len(down) + len(out)} of "
            f"{total} hosts would be out, and max_unavailable is {allowed}"
        )
    return None


def first_obstacle(waves: Sequence[Sequence[str]], serving: Mapping[str, bool], pace: Pace) -> str | None:
    """Say why a run could not go through even if every wave ended well; better known before the first."""
    now = dict(serving)
    for wave in waves:
        reason = obstacle(wave, now, pace)
        if reason:
            return reason
        now.update(dict.fromkeys(wave, True))
    return None


def next_back(waves: Sequence[Sequence[str]], serving: Mapping[str, bool], pace: Pace) -> tuple[list[str], str | None]:
    """Return which hosts of these waves go back next, newest wave first, or why none may (see `obstacle`)."""
    for wave in reversed(waves):
        chosen: list[str] = []
        reason = None
        for name in wave:
            problem = obstacle([*chosen, name], serving, pace)
            reason = reason or problem
            if problem is None:
                chosen.append(name)
        if wave:
            return chosen, None if chosen else reason
    return [], None
