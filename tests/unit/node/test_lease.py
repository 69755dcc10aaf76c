"""The lease: one roll-out at a time, an end by itself, and a token by which a late owner is known."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sparknode import journal, lease, lock
from sparknode.activate import DONE, REVERTED
from sparknode.errors import LeaseHeld
from sparknode.probe import status
from sparknode.steps import Steps

from .acting import NEW, OLD, activate
from .test_recover import PowerCut, cut_at, reboot
from .world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def take(world: World, rollout: str, ttl_s: float = 60.0) -> int:
    return int(lease.take(world.host, rollout, f"ops@{rollout}", "10.0.0.9", ttl_s)["token"])


def test_a_second_operator_is_refused_with_who_since_when_from_where_and_until_when(world: World) -> None:
    take(world, "first")

    with pytest.raises(LeaseHeld) as refused:
        take(world, "second")

    found = lease.holder(world.host)
    assert found is not None
    for part in ("roll-out first of ops@first", "from 10.0.0.9", str(found["since"]), str(found["until"])):
        assert part in str(refused.value)
    assert refused.value.code == 31


def test_its_owner_takes_it_again_and_keeps_the_token(world: World) -> None:
    first = take(world, "first")
    world.clock += 50.0

    assert take(world, "first") == first
    world.clock += 50.0
    assert lease.holder(world.host) is not None


def test_an_expired_one_is_taken_over_with_a_larger_token_and_a_line_in_the_journal(world: World) -> None:
    first = take(world, "first")
    world.clock += 61.0

    second = take(world, "second")

    assert second > first
    line = json.loads(world.paths.journal.read_text())
    assert (line["state"], line["rollout"]) == ("lease", "second")
    assert "taken over from roll-out first of ops@first" in line["note"]
    assert journal.read(world.paths) == [], "it belongs to no activation"
    with pytest.raises(LeaseHeld, match=r"lease 1 of roll-out first is not valid any more \(token now 2\)"):
        lease.renew(world.host, "first", first)


def test_tokens_grow_also_when_each_is_given_back(world: World) -> None:
    tokens = []
    for name in ("a", "b", "c"):
        tokens.append(take(world, name))
        lease.release(world.host, name, tokens[-1])

    assert tokens == [1, 2, 3]
    assert lease.holder(world.host) is None
    with pytest.raises(LeaseHeld):
        lease.release(world.host, "a", 1)


def test_a_late_renewal_takes_no_lease_that_was_given_back(world: World) -> None:
    token = take(world, "first")
    lease.release(world.host, "first", token)
    with pytest.raises(LeaseHeld, match="was given back"):
        lease.renew(world.host, "first", token, revive=False)
    assert lease.holder(world.host) is None
    lease.renew(world.host, "first", token)
    assert lease.holder(world.host) is not None, "a worker that still works holds it on"


def test_a_file_that_can_not_be_read_gives_a_token_above_all_before(world: World) -> None:
    take(world, "first")
    world.paths.lease.write_text("{")

    assert take(world, "second") > 1_000_000


def test_a_lease_from_a_clock_that_was_wrong_does_not_hold_for_ever(world: World) -> None:
    world.clock = 1e8
    take(world, "first")
    world.clock = 0.0

    assert take(world, "second") == 2


def test_a_living_worker_keeps_it_however_late_its_renewal_is(world: World) -> None:
    take(world, "first")
    world.clock += 3600.0

    with lock.hold(world.paths):
        assert lease.holder(world.host) is not None
        with pytest.raises(LeaseHeld):
            take(world, "second")


def test_two_that_take_at_once_get_it_one_after_the_other(world: World) -> None:
    path = world.paths.lease.with_suffix(".lock")
    with lock.hold_file(path), pytest.raises(LeaseHeld, match="find it with `fuser"):
        take(world, "first")
    assert take(world, "first") == 1


def test_an_activation_without_a_token_takes_the_lease_and_gives_it_back(serving: World) -> None:
    seen = []
    serving.on_sleep = lambda: seen.append(lease.holder(serving.host))

    assert activate(serving).code == DONE
    assert {holder["rollout"] if holder else None for holder in seen} == {"rollout-1"}
    assert lease.holder(serving.host) is None


def test_the_lease_of_a_worker_that_was_cut_off_is_free_after_the_boot(serving: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cut_at(patch, serving, 5, torn=False)
        with pytest.raises(PowerCut):
            activate(serving)
    assert lease.holder(serving.host) is not None

    reboot(serving, [])

    assert lease.holder(serving.host) is None


def test_an_activation_is_refused_while_another_roll_out_has_the_host(serving: World) -> None:
    take(serving, "other")

    with pytest.raises(LeaseHeld, match="roll-out other"):
        activate(serving)

    assert serving.running == OLD["id"]
    assert journal.read(serving.paths) == []


def test_an_activation_with_a_token_that_is_not_valid_any_more_is_refused(serving: World) -> None:
    token = take(serving, "rollout-1")
    serving.clock += 61.0
    take(serving, "other")

    with pytest.raises(LeaseHeld, match=f"lease {token} of roll-out rollout-1 is not valid"):
        activate(serving, token=token)


def test_an_activation_with_its_token_renews_the_lease_and_leaves_it(serving: World) -> None:
    token = take(serving, "rollout-1")

    assert activate(serving, token=token).code == DONE

    found = lease.holder(serving.host)
    assert found is not None
    assert found["token"] == token


@pytest.mark.parametrize("state", ["draining", "stopping", "switching", "starting", "probing", "soaking"])
def test_a_worker_whose_host_was_given_away_goes_back_before_its_next_step(
    serving: World, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in this program gives a host away while its worker lives; the token is for what does."""
    token = take(serving, "rollout-1")
    real = journal.append

    def stolen(_: object, record: dict[str, object]) -> None:
        real(serving.paths, record)
        if record["state"] == state:
            serving.paths.lease.write_text('{"token": 9, "rollout": "other", "until": "2099-01-01T00:00:00.000Z"}')

    monkeypatch.setattr(journal, "append", stolen)

    run = activate(serving, token=token)

    assert run.code == REVERTED
    assert "lease: lease 1 of roll-out rollout-1 is not valid any more (token now 9)" in run.last["error"]
    assert serving.running == OLD["id"]
    assert "committed" not in run.states


def test_waiting_keeps_the_lease(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    renewals = []
    real = lease.renew

    def renew(*given: Any) -> Any:
        renewals.append(serving.clock)
        return real(*given)

    monkeypatch.setattr(lease, "renew", renew)
    monkeypatch.setattr(Steps, "soak", lambda *_: None)
    serving.engines[NEW["id"]].load_s = 300.0

    assert activate(serving).code == DONE
    loading = [at for at in renewals if at < serving.clock]
    assert max(after - before for before, after in pairwise(loading)) < 60.0


def test_the_probe_shows_the_lease(world: World) -> None:
    assert status(world.host)["lease"] is None
    take(world, "first")

    assert status(world.host)["lease"]["operator"] == "ops@first"
