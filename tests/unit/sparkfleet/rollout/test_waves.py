"""Waves: who goes first, how many at once, each host once; and when another wave would leave too few serving."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.inventory.pace import Pace, Share
from sparkfleet.rollout.waves import Member, first_obstacle, least_of, next_back, obstacle, plan_waves, share_of


def members(text: str) -> list[Member]:
    """Hosts by a letter each; `*` makes the one before it a canary, `-` one that is down, `~` one that drifted."""
    found: list[Member] = []
    for sign in text:
        if sign.isalpha():
            found.append(Member(sign))
        else:
            last = found.pop()
            found.append(
                Member(
                    last.name,
                    canary=last.canary or sign == "*",
                    serving=last.serving and sign != "-",
                    healthy=last.healthy and sign == "*",
                )
            )
    return found


@pytest.mark.parametrize(
    ("hosts", "pace", "waves"),
    [
        ("", Pace(), ""),
        ("abc", Pace(), "a b c"),
        ("abc*", Pace(batch_size=(2,), max_unavailable=2), "c ab"),
        ("ab*cde", Pace(batch_size=(2,), max_unavailable=2), "b ac de"),
        ("a*b*", Pace(batch_size=(5,), max_unavailable=5), "ab"),
        # A ramp goes on with its last step; the step is the wave's number.
        ("a*bcdefgh", Pace(batch_size=(1, "25%", "100%"), max_unavailable="100%"), "a bc defgh"),
        ("abcdefgh", Pace(batch_size=(1, "10%", "25%"), max_unavailable="25%"), "a b cd ef gh"),
        # Of hosts that serve no more than may be out; those that are down cost nothing.
        ("abcd", Pace(batch_size=(4,), max_unavailable="25%"), "a b c d"),
        ("a-b-c-d-", Pace(batch_size=(4,), max_unavailable="25%"), "abcd"),
        # Down and drifted ones first, canaries first among their kind.
        ("a*bc-d~", Pace(), "c d a b"),
        ("a*bc-d-*", Pace(), "d c a b"),
        ("a*bc-d~", Pace(unhealthy_first=False), "a b c d"),
    ],
)
def test_waves(hosts: str, pace: Pace, waves: str) -> None:
    found = members(hosts)
    assert " ".join("".join(wave) for wave in plan_waves(found, pace, len(found))) == waves


def test_a_step_of_the_ramp_is_not_spent_on_hosts_that_are_down() -> None:
    def sizes(down: int) -> list[int]:
        hosts = [Member(f"h{number}", serving=number >= down, healthy=number >= down) for number in range(100)]
        pace = Pace(batch_size=(1, "10%", "25%"), max_unavailable="25%")
        return [len(wave) for wave in plan_waves(hosts, pace, 100)]

    assert sizes(0) == [1, 10, 25, 25, 25, 14]
    assert sizes(3) == [1, 2, 1, 10, 25, 25, 25, 11]


@pytest.mark.parametrize(
    ("left", "up", "pace", "back", "says"),
    [
        ("ab cd", "abcdef", Pace(max_unavailable=1), "c", None),
        ("ab cd", "abcdef", Pace(max_unavailable=2), "cd", None),
        ("ab .", "abcdef", Pace(max_unavailable=3), "ab", None),
        ("ab cd", "abcdef", Pace(max_unavailable=2, min_serving=5), "c", None),
        # One that is down already costs nothing; another that is down takes its place among those that may be.
        ("ab cd", "abcef", Pace(max_unavailable=1), "d", None),
        ("ab cd", "abcde", Pace(max_unavailable=1), "", "f does not serve"),
        ("ab cd", "abcdef", Pace(min_serving=6), "", "min_serving is 6"),
        (". .", "abcdef", Pace(), "", None),
    ],
)
def test_who_goes_back_next(left: str, up: str, pace: Pace, back: str, says: str | None) -> None:
    waves = [list(wave.replace(".", "")) for wave in left.split()]
    chosen, reason = next_back(waves, {name: name in up for name in "abcdef"}, pace)
    assert "".join(chosen) == back
    assert (reason is None) if says is None else (says in str(reason))


@pytest.mark.parametrize(
    ("share", "total", "at_most", "at_least"),
    [(3, 10, 3, 3), ("25%", 8, 2, 2), ("25%", 6, 1, 2), ("10%", 4, 0, 1), ("100%", 7, 7, 7), ("0%", 7, 0, 0)],
)
def test_a_share_that_risks_is_rounded_down_and_one_that_protects_up(
    share: Share, total: int, at_most: int, at_least: int
) -> None:
    assert share_of(share, total) == at_most
    assert least_of(share, total) == at_least


@pytest.mark.parametrize(
    ("wave", "up", "pace", "says"),
    [
        ("a", "abcd", Pace(), None),
        ("a", "bcd", Pace(max_unavailable=1, min_serving="100%"), None),
        ("a", "abcd", Pace(min_serving=4), "3 of 4 hosts would serve while a changes, and min_serving is 4"),
        ("a", "abc", Pace(max_unavailable=1), "d does not serve, so that 2 of 4 hosts would be out"),
        ("a", "abc", Pace(max_unavailable=2), None),
        ("ab", "abcd", Pace(max_unavailable=1), "2 of 4 hosts would be out"),
    ],
)
def test_obstacles(wave: str, up: str, pace: Pace, says: str | None) -> None:
    reason = obstacle(list(wave), {name: name in up for name in "abcd"}, pace)
    assert (reason is None) if says is None else (reason is not None and says in reason)


def test_a_run_that_mends_the_down_hosts_first_may_start() -> None:
    found = members("abc-d")
    serving = {member.name: member.serving for member in found}
    first = Pace(max_unavailable=1)
    assert first_obstacle(plan_waves(found, first, 4), serving, first) is None
    last = Pace(max_unavailable=1, unhealthy_first=False)
    assert "c does not serve" in str(first_obstacle(plan_waves(found, last, 4), serving, last))


SHARES = st.integers(1, 9) | st.integers(0, 100).map("{}%".format)
PACES = st.builds(
    Pace,
    batch_size=st.lists(SHARES, min_size=1, max_size=4).map(tuple),
    max_unavailable=SHARES,
    unhealthy_first=st.booleans(),
)


@st.composite
def fleets(draw: st.DrawFn) -> list[Member]:
    count = draw(st.integers(0, 40))
    flags = draw(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=count, max_size=count))
    return [Member(f"h{number}", canary, serving, healthy) for number, (canary, serving, healthy) in enumerate(flags)]


@given(fleets(), PACES)
def test_the_rules_of_every_plan(hosts: list[Member], pace: Pace) -> None:
    # A host that is down counts as unhealthy, also where nobody said so.
    by_name = {member.name: replace(member, healthy=member.healthy and member.serving) for member in hosts}
    waves = [[by_name[name] for name in wave] for wave in plan_waves(hosts, pace, len(hosts))]
    flat = [member for wave in waves for member in wave]

    assert sorted(member.name for member in flat) == sorted(by_name), "each host once"
    spent = {True: 0, False: 0}
    for wave in waves:
        serving = any(member.serving for member in wave)
        size = {
            kind: max(1, share_of(pace.batch_size[min(count, len(pace.batch_size) - 1)], len(hosts)))
            for kind, count in spent.items()
        }
        spent[serving] += 1
        assert 1 <= len(wave) <= size[wave[0].serving]
        assert sum(member.serving for member in wave) <= size[True]
        assert sum(member.serving for member in wave) <= max(1, share_of(pace.max_unavailable, len(hosts)))
        assert len({(member.canary, member.healthy if pace.unhealthy_first else None) for member in wave}) == 1
    for before, after in pairwise(flat):
        if pace.unhealthy_first:
            assert before.healthy <= after.healthy, "unhealthy hosts first"
        if not pace.unhealthy_first or before.healthy == after.healthy:
            assert before.canary >= after.canary, "then canaries"


@given(fleets(), PACES)
def test_a_plan_that_starts_never_has_too_many_out(hosts: list[Member], pace: Pace) -> None:
    """Walk through the waves: at no time do more hosts than allowed not serve because of the run."""
    waves = plan_waves(hosts, pace, len(hosts))
    serving = {member.name: member.serving for member in hosts}
    if first_obstacle(waves, serving, pace):
        return
    allowed = max(1, share_of(pace.max_unavailable, len(hosts)))
    for wave in waves:
        taken = [name for name in wave if serving[name]]
        out = sum(not up for name, up in serving.items() if name not in wave) + len(taken)
        assert not taken or out <= allowed
        serving.update(dict.fromkeys(wave, True))
    assert all(serving.values())
