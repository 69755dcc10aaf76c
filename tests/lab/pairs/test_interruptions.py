"""The operator's laptop, the SSH session or the power dies in the middle: the node ends old or new, and converges."""

from __future__ import annotations

import os
import signal
import subprocess

from sparkfleet.rollout import exit_codes
from tests.lab import faults
from tests.lab.cases.reading import LEASE_S, PREFIX_TAG, THIRD_TAG, Node, pyinfra, shown, wait_for
from tests.lab.pairs.attempts import starting
from tests.lab.workers import clear_knobs, limits


def test_kill_9_of_pyinfra_while_the_engine_starts(pair: list[Node]) -> None:
    canary, second = pair
    others_release = shown(second.name, f"image_tag={THIRD_TAG}")["id"]
    tried = second.tried(others_release)
    with starting(pair, THIRD_TAG, 6, *limits(pair)) as (attempt, run):
        os.killpg(run.pid, signal.SIGKILL)
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
    second = pair[1]
    others_release = shown(second.name, f"image_tag={PREFIX_TAG}")["id"]
    tried = second.tried(others_release)
    with starting(pair, PREFIX_TAG, 6, *limits(pair)) as (attempt, run):
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=120)
    assert run.returncode == 130, output
    assert attempt.ended() == "committed"
    assert second.tried(others_release) == tried


def test_power_cut_while_starting(pair: list[Node]) -> None:
    canary = pair[0]
    old = shown(canary.name)["id"]
    with starting(pair, THIRD_TAG, 20, "--limit", canary.name) as (attempt, run):
        faults.power_cut(canary.name)
        # The controller connects again and waits for what the node makes of it.
        output, _ = run.communicate(timeout=180)
    assert attempt.ended() == "reverted"
    assert canary.link("current") == canary.link("verified") == old
    assert canary.serves()
    assert run.returncode == exit_codes.REVERTED, output


def test_power_cut_of_a_verified_server(pair: list[Node]) -> None:
    node = pair[1]
    faults.power_cut(node.name)
    wait_for("the server after the boot", node.serves, 90)
    assert node.link("current") == node.link("verified") == shown(node.name)["id"]


def test_two_runs_at_once_do_not_mix(pair: list[Node]) -> None:
    canary = pair[0]
    with starting(pair, THIRD_TAG, 6, "--limit", canary.name) as (attempt, first):
        second = pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", canary.name)
        output, _ = first.communicate(timeout=120)
    assert second.code == exit_codes.LEASE_HELD, second.output
    assert "works on this host since" in second.output
    assert first.returncode == 0, output
    assert canary.link("verified") == attempt.release


def test_the_operators_ssh_session_dies(pair: list[Node]) -> None:
    canary = pair[0]
    # Long enough for the login that ends the others on a slow machine.
    with starting(pair, PREFIX_TAG, 12, "--limit", canary.name) as (attempt, run):
        canary.sudo("pkill -f '[s]shd: spark' || true", check=False)
        output, _ = run.communicate(timeout=120)
    assert attempt.ended() == "committed"
    assert run.returncode == 0, output
    assert "connecting again" in output
    assert canary.serves()


def test_the_cable_is_out_while_the_engine_starts(pair: list[Node]) -> None:
    canary = pair[0]
    with starting(pair, THIRD_TAG, 6, "--limit", canary.name) as (attempt, run):

        def connected() -> bool:
            words = ["ss", "-Htnp", "state", "established", "dst", canary.address]
            return f"pid={run.pid}," in subprocess.run(words, capture_output=True, text=True, check=True).stdout

        assert connected()
        faults.link_down(canary.name)
        try:
            wait_for("the controller to give its connection up", lambda: not connected(), 60)
        finally:
            faults.link_up(canary.name)
        output, _ = run.communicate(timeout=180)
    assert attempt.ended() == "committed"
    assert run.returncode == 0, output
    assert "connecting again" in output
    assert canary.serves()
