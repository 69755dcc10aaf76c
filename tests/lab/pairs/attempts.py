"""Rollouts that a test disturbs while an engine loads."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.cases.reading import Node, shown, start_pyinfra, wait_for
from tests.lab.workers import set_knobs


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


@contextmanager
def starting(
    pair: list[Node], tag: str, load_s: float, *arguments: str
) -> Iterator[tuple[Attempt, subprocess.Popen[str]]]:
    """A rollout whose first host's engine loads for `load_s` seconds; its process is ended where it still runs."""
    canary = pair[0]
    attempt = Attempt(canary, shown(canary.name, f"image_tag={tag}")["id"])
    set_knobs(pair, tag, slow_load_s=load_s)
    run = start_pyinfra("--data", f"image_tag={tag}", *arguments)
    try:
        attempt.reached("starting")
        yield attempt, run
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate(timeout=30)
