"""Two operators, one who leaves, and one whose machine dies: a host belongs to one rollout at a time."""

from __future__ import annotations

import json
import os
import re
import signal

from sparkfleet.rollout import exit_codes
from tests.lab.cases.reading import (
    LEASE_S,
    OTHER_TAG,
    PREFIX_TAG,
    STATE,
    THIRD_TAG,
    Node,
    pyinfra,
    report_of,
    shown,
    wait_for,
)
from tests.lab.pairs.attempts import starting
from tests.lab.workers import limits, set_knobs


def takeovers(node: Node) -> list[str]:
    lines = node.sudo(f"cat {STATE}/journal.jsonl").splitlines()
    return [record["note"] for record in map(json.loads, lines) if record["state"] == "lease"]


def test_a_second_operator_is_told_who_is_at_work_and_ctrl_c_ends_after_the_wave(pair: list[Node]) -> None:
    other = pair[1]
    others_release = shown(other.name, f"image_tag={THIRD_TAG}")["id"]
    tried = other.tried(others_release)
    with starting(pair, THIRD_TAG, 5, *limits(pair)) as (attempt, first):
        # A host that the first one's later waves are to change: its lease is taken from the beginning.
        second = pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", other.name)
        first.send_signal(signal.SIGINT)
        output, _ = first.communicate(timeout=120)

    assert second.code == exit_codes.LEASE_HELD, second.output
    assert re.search(r"rollout \w+ of \S+ works on this host since \S+ \(from 10\.83\.\d+\.1, until", second.output)
    assert first.returncode == 130, output
    assert attempt.ended() == "committed"
    assert json.loads(report_of(output))["outcome"] == "interrupted"
    assert other.tried(others_release) == tried
    assert all(node.is_free() for node in pair)


def test_the_lease_of_an_owner_who_died_is_taken_over_and_the_journal_says_so(pair: list[Node]) -> None:
    other = pair[1]
    before = takeovers(other)
    with starting(pair, THIRD_TAG, 5, *limits(pair)) as (attempt, run):
        os.killpg(run.pid, signal.SIGKILL)

    # Nothing happens on this host, and still it is the dead owner's until the lease ends.
    too_early = pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", other.name)
    assert too_early.code == exit_codes.LEASE_HELD, too_early.output
    assert "works on this host since" in too_early.output
    assert attempt.ended() == "committed"

    for node in pair:
        wait_for(f"the end of the lease on {node.name}", node.is_free, LEASE_S + 5)
    again = pyinfra("--data", f"image_tag={THIRD_TAG}", *limits(pair))
    assert again.code == 0, again.output
    assert other.link("verified") == shown(other.name, f"image_tag={THIRD_TAG}")["id"]
    (taken,) = takeovers(other)[len(before) :]
    assert re.search(r"lease \d+ taken over from rollout \w+ of \S+, which ended at .* without being given back", taken)


def test_a_controller_that_comes_back_from_the_dead_touches_nothing_more(pair: list[Node]) -> None:
    other = pair[1]
    with starting(pair, THIRD_TAG, 5, *limits(pair)) as (attempt, sleeper):
        os.killpg(sleeper.pid, signal.SIGSTOP)
        wait_for(f"the end of the lease on {other.name}", other.is_free, LEASE_S + 5)
        second = pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", other.name)
        os.killpg(sleeper.pid, signal.SIGCONT)
        output, _ = sleeper.communicate(timeout=120)

    assert second.code == 0, second.output
    assert sleeper.returncode == exit_codes.HALTED_MIXED, output
    # Its own heartbeat hears of it, or the node refuses the step: whichever comes first after the sleep.
    assert re.search(r"lease \d+ of rollout \w+ is not valid any more", output), output[-3000:]
    assert attempt.ended() == "committed"
    assert other.link("current") == other.link("verified") == shown(other.name, f"image_tag={PREFIX_TAG}")["id"]
    assert other.journal()[-1]["release"] == other.link("verified")


def test_with_revert_all_a_failure_takes_back_the_hosts_that_had_taken_the_release(pair: list[Node]) -> None:
    old = {node.name: node.link("verified") for node in pair}
    set_knobs(pair[1:], OTHER_TAG, die_on_first_request=True)
    sequences = json.dumps({"max_num_seqs": 13})
    data = ["--data", f"image_tag={OTHER_TAG}", "--data", f"overrides={sequences}", "--data", "on_failure=revert_all"]

    outcome = pyinfra(*data, *limits(pair))

    assert outcome.code == exit_codes.REVERTED, outcome.output
    assert "short-chat" in outcome.output
    for node in pair:
        assert node.link("current") == node.link("verified") == old[node.name], node.name
        assert node.serves()
    assert pair[0].journal()[-1]["state"] == "committed", "it had taken the release and was given the old one again"
