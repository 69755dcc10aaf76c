"""The operator's laptop, the SSH session or the power dies in the middle: the node ends old or new, and converges."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.lab import control, faults
from tests.lab.cases.reading import (
    OTHER_TAG,
    PREFIX_TAG,
    Node,
    pyinfra,
    shown,
    start_pyinfra,
    wait_for,
)


def _ended(node: Node, release: str, deadline_s: float = 120) -> str:
    """Wait until the node's activation of the release has ended; return how."""

    def look() -> str | None:
        records = [record for record in node.journal() if record["release"] == release]
        state = records[-1]["state"] if records else None
        return state if state in ("committed", "reverted", "failed") else None

    return wait_for(f"{node.name}: the end of the activation", look, deadline_s)


def _reached(node: Node, release: str, state: str, deadline_s: float = 120) -> None:
    wait_for(
        f"{node.name}: {state}",
        lambda: any(r["release"] == release and r["state"] == state for r in node.journal()),
        deadline_s,
    )


def test_kill_9_of_pyinfra_while_the_engine_starts(serving: list[Node]) -> None:
    canary, second = serving[:2]
    wanted = shown(canary.name, f"image_tag={OTHER_TAG}")["id"]
    control.set_knobs("all", OTHER_TAG, slow_load_s=6)
    run = start_pyinfra("--data", f"image_tag={OTHER_TAG}")
    try:
        _reached(canary, wanted, "starting")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=30)
    assert _ended(canary, wanted) == "committed"
    assert canary.serves()
    assert not second.tried(shown(second.name, f"image_tag={OTHER_TAG}")["id"])

    again = pyinfra("--data", f"image_tag={OTHER_TAG}")
    assert again.code == 0, again.output
    for node in serving:
        assert node.serves()
        assert node.link("verified") == shown(node.name, f"image_tag={OTHER_TAG}")["id"]


def test_ctrl_c_is_no_success_and_the_node_finishes(serving: list[Node]) -> None:
    canary, second = serving[:2]
    wanted = shown(canary.name, f"image_tag={PREFIX_TAG}")["id"]
    control.set_knobs("all", PREFIX_TAG, slow_load_s=6)
    run = start_pyinfra("--data", f"image_tag={PREFIX_TAG}")
    try:
        _reached(canary, wanted, "starting")
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=30)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 130, output
    assert _ended(canary, wanted) == "committed"
    assert not second.tried(shown(second.name, f"image_tag={PREFIX_TAG}")["id"])


def test_power_cut_while_starting(serving: list[Node]) -> None:
    canary = serving[0]
    old = shown(canary.name)["id"]
    wanted = shown(canary.name, f"image_tag={OTHER_TAG}")["id"]
    attempts = sum(r["release"] == wanted and r["state"] == "starting" for r in canary.journal())
    control.set_knobs("all", OTHER_TAG, slow_load_s=30)
    run = start_pyinfra("--data", f"image_tag={OTHER_TAG}", "--limit", canary.name)
    try:
        wait_for(
            "a new start",
            lambda: sum(r["release"] == wanted and r["state"] == "starting" for r in canary.journal()) > attempts,
            120,
        )
        faults.power_cut(canary.name)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=30)
    wait_for(f"{canary.name} to answer", canary.reachable)
    assert _ended(canary, wanted) == "reverted"
    assert canary.link("current") == canary.link("verified") == old
    wait_for("a generation", canary.serves)
    assert run.returncode != 0


def test_power_cut_of_a_verified_server(serving: list[Node]) -> None:
    node = serving[1]
    faults.power_cut(node.name)
    wait_for("the server after the boot", node.serves, 90)
    assert node.link("current") == node.link("verified") == shown(node.name)["id"]


def test_two_runs_at_once_do_not_mix(serving: list[Node]) -> None:
    canary = serving[0]
    control.set_knobs("all", OTHER_TAG, slow_load_s=6)
    first = start_pyinfra("--data", f"image_tag={OTHER_TAG}", "--limit", canary.name)
    try:
        wanted = shown(canary.name, f"image_tag={OTHER_TAG}")["id"]
        wait_for(
            "the first run's start",
            lambda: canary.journal()[-1]["release"] == wanted and canary.journal()[-1]["state"] == "starting",
            120,
        )
        second = pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", canary.name)
        output, _ = first.communicate(timeout=120)
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
    assert second.code != 0
    assert "is being activated here since" in second.output
    assert first.returncode == 0, output
    assert canary.link("verified") == wanted


def test_the_operators_ssh_session_dies(serving: list[Node]) -> None:
    canary = serving[0]
    wanted = shown(canary.name, f"image_tag={PREFIX_TAG}")["id"]
    ended_before = sum(r["release"] == wanted and r["state"] == "committed" for r in canary.journal())
    control.set_knobs("all", PREFIX_TAG, slow_load_s=6)
    run = start_pyinfra("--data", f"image_tag={PREFIX_TAG}", "--limit", canary.name)
    try:
        wait_for(
            "the start",
            lambda: canary.journal()[-1]["release"] == wanted and canary.journal()[-1]["state"] == "starting",
            120,
        )
        subprocess.run(["true"], check=True)
        faults.link_down(canary.name)
        faults.link_up(canary.name)
        canary.sudo("pkill -f 'sshd: spark' || true", check=False)
        run.communicate(timeout=120)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    wait_for(
        "the end of the activation",
        lambda: sum(r["release"] == wanted and r["state"] == "committed" for r in canary.journal()) > ended_before,
        120,
    )
    assert run.returncode != 0
    assert canary.serves()
