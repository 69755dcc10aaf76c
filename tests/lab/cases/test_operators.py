"""Two operators, one who leaves, and one whose machine dies: a host belongs to one roll-out at a time."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

from tests.lab import control
from tests.lab.cases.reading import (
    LEASE_S,
    OTHER_TAG,
    PREFIX_TAG,
    ROOT,
    STATE,
    THIRD_TAG,
    Node,
    pyinfra,
    shown,
    start_pyinfra,
    wait_for,
)
from tests.lab.cases.test_interruptions import Attempt, end


def last_report() -> dict[str, Any]:
    paths = sorted((ROOT / ".sparkfleet" / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime)
    report: dict[str, Any] = json.loads(paths[-1].read_text())
    return report


def takeovers(node: Node) -> list[str]:
    lines = node.sudo(f"cat {STATE}/journal.jsonl").splitlines()
    return [record["note"] for record in map(json.loads, lines) if record["state"] == "lease"]


def test_a_second_operator_is_told_who_is_at_work_and_ctrl_c_ends_after_the_wave(serving: list[Node]) -> None:
    canary, *others = serving
    attempt = Attempt(canary, shown(canary.name, f"image_tag={THIRD_TAG}")["id"])
    tried = [node.tried(shown(node.name, f"image_tag={THIRD_TAG}")["id"]) for node in others]
    control.set_knobs("all", THIRD_TAG, slow_load_s=8)
    first = start_pyinfra("--data", f"image_tag={THIRD_TAG}")
    try:
        attempt.reached("starting")
        # A host that the first one's later waves are to change: its lease is taken from the beginning.
        second = pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", others[-1].name)
        first.send_signal(signal.SIGINT)
        output, _ = first.communicate(timeout=120)
    finally:
        end(first)

    assert second.code == 1, second.output
    assert re.search(r"roll-out \w+ of \S+ works on this host since \S+ \(from 10\.83\.\d+\.1, until", second.output)
    assert first.returncode == 130, output
    assert attempt.ended() == "committed"
    assert last_report()["outcome"] == "interrupted"
    assert [node.tried(shown(node.name, f"image_tag={THIRD_TAG}")["id"]) for node in others] == tried
    assert all(node.is_free() for node in serving)


def test_the_lease_of_an_owner_who_died_is_taken_over_and_the_journal_says_so(serving: list[Node]) -> None:
    canary, other = serving[0], serving[1]
    before = takeovers(other)
    attempt = Attempt(canary, shown(canary.name, f"image_tag={THIRD_TAG}")["id"])
    control.set_knobs("all", THIRD_TAG, slow_load_s=8)
    limits = [argument for node in (canary, other) for argument in ("--limit", node.name)]
    run = start_pyinfra("--data", f"image_tag={THIRD_TAG}", *limits)
    try:
        attempt.reached("starting")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=30)

    # Nothing happens on this host, and still it is the dead owner's until the lease ends.
    too_early = pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", other.name)
    assert too_early.code == 1, too_early.output
    assert "works on this host since" in too_early.output
    assert attempt.ended() == "committed"

    wait_for("the end of the lease", other.is_free, LEASE_S + 5)
    again = pyinfra("--data", f"image_tag={THIRD_TAG}", *limits)
    assert again.code == 0, again.output
    assert other.link("verified") == shown(other.name, f"image_tag={THIRD_TAG}")["id"]
    (taken,) = takeovers(other)[len(before) :]
    assert re.search(
        r"lease \d+ taken over from roll-out \w+ of \S+, which ended at .* without being given back", taken
    )


def test_with_revert_all_a_failure_takes_back_the_hosts_that_had_taken_the_release(serving: list[Node]) -> None:
    limits = [argument for node in serving[:2] for argument in ("--limit", node.name)]
    old = {node.name: node.link("verified") for node in serving}
    control.set_knobs(serving[1].name, OTHER_TAG, die_on_first_request=True)
    sequences = json.dumps({"max_num_seqs": 13})
    data = ["--data", f"image_tag={OTHER_TAG}", "--data", f"overrides={sequences}", "--data", "on_failure=revert_all"]

    outcome = pyinfra(*data, *limits)

    assert outcome.code == 1, outcome.output
    assert "short-chat" in outcome.output
    for node in serving[:2]:
        assert node.link("current") == node.link("verified") == old[node.name], node.name
        assert node.serves()
    assert serving[0].journal()[-1]["state"] == "committed", "it had taken the release and was given the old one again"
