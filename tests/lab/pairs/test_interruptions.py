"""The operator's laptop, the SSH session or the power dies in the middle: the node ends old or new, and converges."""

from __future__ import annotations

import os
import signal
import subprocess

from sparkfleet import exits
from tests.lab import faults
from tests.lab.cases.reading import (
    LEASE_S,
    PREFIX_TAG,
    THIRD_TAG,
    Node,
    pyinfra,
    shown,
    start_pyinfra,
    wait_for,
)
from tests.lab.workers import clear_knobs, limits, set_knobs


class Attempt:
    """The next activation of a release on a node, told from earlier ones by the journal's ids."""

    def __init__(self, node: Node, release: str) -> None:
        self.node = node
        self.release = release
        self.earlier = {record["activation"] for record in node.journal()}

    def states(self) -> list[str]:
        return [
            record["state"]
            for record in self.node.journal()
            if record["release"] == self.release and record["activation"] not in self.earlier
        ]

    def reached(self, state: str, deadline_s: float = 120) -> None:
        wait_for(f"{self.node.name}: {state}", lambda: state in self.states(), deadline_s)

    def ended(self, deadline_s: float = 120) -> str:
        """Wait for the end; return how it ended."""

        def look() -> str | None:
            states = self.states()
            return states[-1] if states and states[-1] in ("committed", "reverted", "failed") else None

        return wait_for(f"{self.node.name}: the end of the activation", look, deadline_s)


def end(run: subprocess.Popen[str]) -> None:
    """End the process group that a test started, if it has not ended by itself."""
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=30)


def test_kill_9_of_pyinfra_while_the_engine_starts(pair: list[Node]) -> None:
    canary, second = pair
    attempt = Attempt(canary, shown(canary.name, f"image_tag={THIRD_TAG}")["id"])
    others_release = shown(second.name, f"image_tag={THIRD_TAG}")["id"]
    tried = second.tried(others_release)
    set_knobs(pair, THIRD_TAG, slow_load_s=6)
    run = start_pyinfra("--data", f"image_tag={THIRD_TAG}", *limits(pair))
    try:
        attempt.reached("starting")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=30)
    assert attempt.ended() == "committed"
    assert canary.serves()
    assert second.tried(others_release) == tried

    clear_knobs(pair)
    for node in pair:
        wait_for(f"the end of the lease on {node.name}", node.is_free, LEASE_S + 5)
    again = pyinfra("--data", f"image_tag={THIRD_TAG}", *limits(pair))
    assert again.code == 0, again.output
    for node in pair:
        assert node.serves()
        assert node.link("verified") == shown(node.name, f"image_tag={THIRD_TAG}")["id"]


def test_ctrl_c_is_no_success_and_the_node_finishes(pair: list[Node]) -> None:
    canary, second = pair
    attempt = Attempt(canary, shown(canary.name, f"image_tag={PREFIX_TAG}")["id"])
    others_release = shown(second.name, f"image_tag={PREFIX_TAG}")["id"]
    tried = second.tried(others_release)
    set_knobs(pair, PREFIX_TAG, slow_load_s=6)
    run = start_pyinfra("--data", f"image_tag={PREFIX_TAG}", *limits(pair))
    try:
        attempt.reached("starting")
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=120)
    finally:
        end(run)
    assert run.returncode == 130, output
    assert attempt.ended() == "committed"
    assert second.tried(others_release) == tried


def test_power_cut_while_starting(pair: list[Node]) -> None:
    canary = pair[0]
    old = shown(canary.name)["id"]
    attempt = Attempt(canary, shown(canary.name, f"image_tag={THIRD_TAG}")["id"])
    set_knobs(pair, THIRD_TAG, slow_load_s=20)
    run = start_pyinfra("--data", f"image_tag={THIRD_TAG}", "--limit", canary.name)
    try:
        attempt.reached("starting")
        faults.power_cut(canary.name)
        # The controller connects again and waits for what the node makes of it.
        output, _ = run.communicate(timeout=180)
    finally:
        end(run)
    assert attempt.ended() == "reverted"
    assert canary.link("current") == canary.link("verified") == old
    assert canary.serves()
    assert run.returncode == exits.REVERTED, output


def test_power_cut_of_a_verified_server(pair: list[Node]) -> None:
    node = pair[1]
    faults.power_cut(node.name)
    wait_for("the server after the boot", node.serves, 90)
    assert node.link("current") == node.link("verified") == shown(node.name)["id"]


def test_two_runs_at_once_do_not_mix(pair: list[Node]) -> None:
    canary = pair[0]
    attempt = Attempt(canary, shown(canary.name, f"image_tag={THIRD_TAG}")["id"])
    set_knobs(pair, THIRD_TAG, slow_load_s=6)
    first = start_pyinfra("--data", f"image_tag={THIRD_TAG}", "--limit", canary.name)
    try:
        attempt.reached("starting")
        second = pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", canary.name)
        output, _ = first.communicate(timeout=120)
    finally:
        end(first)
    assert second.code == exits.LEASE_HELD, second.output
    assert "works on this host since" in second.output
    assert first.returncode == 0, output
    assert canary.link("verified") == attempt.release


def test_the_operators_ssh_session_dies(pair: list[Node]) -> None:
    canary = pair[0]
    attempt = Attempt(canary, shown(canary.name, f"image_tag={PREFIX_TAG}")["id"])
    set_knobs(pair, PREFIX_TAG, slow_load_s=6)
    run = start_pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", canary.name)
    try:
        attempt.reached("starting")
        canary.sudo("pkill -f 'sshd: spark' || true", check=False)
        output, _ = run.communicate(timeout=120)
    finally:
        end(run)
    assert attempt.ended() == "committed"
    assert run.returncode == 0, output
    assert "connecting again" in output
    assert canary.serves()
