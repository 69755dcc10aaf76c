"""The lease: one rollout at a time, an end by itself, and a token by which a late owner is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparknode.activate.worker import DONE
from sparknode.base import locks
from sparknode.errors import LeaseHeld
from sparknode.host.node_status import report as status
from sparknode.state import journal, lease, orders
from tests.unit.sparknode.acting import OLD, activate, work_once
from tests.unit.sparknode.activate.test_ending import cut, node
from tests.unit.sparknode.world import World


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
    for part in ("rollout first of ops@first", "from 10.0.0.9", str(found["since"]), str(found["until"])):
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
    assert "taken over from rollout first of ops@first" in line["note"]
    assert journal.read(world.paths) == [], "it belongs to no activation"
    with pytest.raises(LeaseHeld, match=r"lease 1 of rollout first is not valid any more \(token now 2\)"):
        lease.renew(world.host, "first", first, 60.0)


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
        lease.renew(world.host, "first", token, 60.0)
    assert lease.holder(world.host) is None


def test_a_file_that_can_not_be_read_gives_a_token_above_all_before(world: World) -> None:
    take(world, "first")
    world.paths.lease.write_text("{")

    assert take(world, "second") > 1_000_000


def test_a_lease_from_a_clock_that_was_wrong_does_not_hold_for_ever(world: World) -> None:
    world.clock = 1e8
    take(world, "first")
    world.clock = 0.0

    assert take(world, "second") == 2


def test_an_activation_under_way_keeps_it_however_late_its_renewal_is(tmp_path: Path) -> None:
    world = node(tmp_path)
    token = take(world, "rollout-1")
    cut(world, "starting", token=token)
    world.clock += 3600.0

    assert lease.holder(world.host) is not None
    with pytest.raises(LeaseHeld, match="rollout rollout-1 of ops@rollout-1 works on this host"):
        take(world, "second")


def test_an_activation_under_way_without_a_lease_keeps_everybody_else_away_and_is_ended(tmp_path: Path) -> None:
    world = node(tmp_path)
    cut(world, "starting")

    with pytest.raises(LeaseHeld, match=r"the activation of release .* is under way on this host"):
        take(world, "second")

    assert orders.pending(world.paths) is None, "systemd was told to go on with it"
    assert take(world, "second") == 1


def test_what_holds_the_host_for_a_moment_is_no_roll_out(world: World) -> None:
    with locks.hold(world.paths, "the watch gives this host back to its rotation"):
        assert take(world, "first") == 1


def test_a_worker_never_writes_a_lease(tmp_path: Path) -> None:
    """One that is started again after its controller has left would take the host from the next one."""
    world = node(tmp_path)
    token = take(world, "rollout-1")
    cut(world, "committed", token=token)
    lease.release(world.host, "rollout-1", token)
    before = world.paths.lease.read_bytes()

    work_once(world)

    assert world.paths.lease.read_bytes() == before
    assert take(world, "second") == token + 1


def test_two_that_take_at_once_get_it_one_after_the_other(world: World) -> None:
    path = world.paths.lease.with_suffix(".lock")
    with locks.hold_file(path, "a test"), pytest.raises(LeaseHeld, match=r"a test .* find it with `fuser"):
        take(world, "first")
    assert take(world, "first") == 1


def test_an_activation_is_refused_while_another_roll_out_has_the_host(serving: World) -> None:
    take(serving, "other")

    with pytest.raises(LeaseHeld, match="rollout other"):
        activate(serving)

    assert serving.running == OLD["id"]
    assert journal.read(serving.paths) == []


def test_an_activation_with_a_token_that_is_not_valid_any_more_is_refused(serving: World) -> None:
    token = take(serving, "rollout-1")
    serving.clock += 61.0
    take(serving, "other")

    with pytest.raises(LeaseHeld, match=f"lease {token} of rollout rollout-1 is not valid"):
        activate(serving, token=token)


def test_an_activation_with_its_token_leaves_the_lease_to_its_roll_out(serving: World) -> None:
    token = take(serving, "rollout-1")

    assert activate(serving, token=token).code == DONE

    found = lease.holder(serving.host)
    assert found is not None
    assert found["token"] == token


@pytest.mark.parametrize("text", ["{", '{"token": 9, "rollout": "other", "until": "2099-01-01T00:00:00.000Z"}'])
def test_once_begun_an_activation_asks_no_lease(serving: World, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can take a host whose activation is under way, so a lease that can't be read is no reason to go back."""
    token = take(serving, "rollout-1")
    real = journal.append

    def torn(_: object, record: dict[str, object]) -> None:
        real(serving.paths, record)
        serving.paths.lease.write_text(text)

    monkeypatch.setattr(journal, "append", torn)

    with locks.hold_file(serving.paths.lease.with_suffix(".other"), "a slow disk"):
        assert activate(serving, token=token).code == DONE


def test_the_probe_shows_the_lease(world: World) -> None:
    assert status(world.host)["lease"] is None
    take(world, "first")

    assert status(world.host)["lease"]["operator"] == "ops@first"
