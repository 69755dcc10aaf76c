"""The main job, start to end, on the lab: `make demo`.

Four bare hosts become four verified servers; an image tag is rolled back and forward again; a fifth host joins.
Where hosts cannot be booted, the same story is shown as a plan on pyinfra's @fake connector, and says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.plan.harness import CURRENT_TAG, PREFIX_TAG, FakeFleet

ROOT = Path(__file__).resolve().parent.parent
PYINFRA = str(Path(sys.executable).parent / "pyinfra")
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"\n\033[1m=== [{time.monotonic() - STARTED:4.0f} s] {text}\033[0m", flush=True)


def step(title: str, *argv: str) -> None:
    """Run one command in the open; a demo that goes on after a failure would lie."""
    shown = " ".join(argv).replace(sys.executable, "python").replace(PYINFRA, "pyinfra")
    say(f"{title}\n    $ {shown}")
    environment = {**os.environ, "PYINFRA_PROGRESS": "off"}
    code = subprocess.run(argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    if code != 0:
        print(f"\ndemo: this step ended with {code}; the lab is still up for a look (make lab-down ends it)")
        sys.exit(code)


def deploy(title: str, *arguments: str) -> None:
    step(title, PYINFRA, "inventory/lab.py", "deploy.py", "-y", *arguments)


# The canary, then the other three together.
IN_TWO_WAVES = ("--data", "batch_size=[1, 3]", "--data", "max_unavailable=3")


def on_the_lab() -> None:
    lab = [sys.executable, "-m", "tests.lab"]
    step("boot four hosts (simulated GPUs and engine; real systemd, sshd, dockerd)", *lab, "up", "--nodes", "4")
    step(
        "pin tags to digests and repositories to commits and hashes",
        *(sys.executable, "-m", "sparkfleet", "lock", "--inventory", "inventory/lab.py"),
    )
    deploy("bare hosts become verified servers, one wave at a time")
    deploy("the same command again changes nothing")
    deploy(
        f"roll back to the pre-fix tag {PREFIX_TAG}: other drafter backend, prefix caching off",
        "--data",
        f"image_tag={PREFIX_TAG}",
        *IN_TWO_WAVES,
    )
    deploy(f"forward again to {CURRENT_TAG}", *IN_TWO_WAVES)
    step("a fifth machine is switched on", *lab, "up", "--nodes", "5")
    deploy("it joins, and nothing else is touched", "--limit", "spark-5")
    step("the fleet", PYINFRA, "inventory/lab.py", "tasks/status.py", "-y")
    step("take the lab down", *lab, "down")
    say("done: four servers, an upgrade, a rollback and a new node")


def as_a_plan(reason: str) -> None:
    print(f"demo: {reason}\n      What follows is the same story as a PLAN on fake hosts: nothing is booted or served.")
    with tempfile.TemporaryDirectory() as folder:
        fleet = FakeFleet(Path(folder), [f"spark-{number}" for number in range(1, 5)])
        for title, arguments in (
            ("bare hosts", ("--dry",)),
            (f"roll back to {PREFIX_TAG}", ("--dry", "--data", f"image_tag={PREFIX_TAG}")),
            ("one host alone", ("--dry", "--limit", "@fake/spark-4")),
        ):
            say(f"plan: {title}")
            outcome = fleet.run(*arguments)
            print(outcome.output)
            if outcome.code != 0:
                sys.exit(outcome.code)


def main() -> None:
    check = subprocess.run(
        [sys.executable, "-m", "tests.lab", "check"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if check.returncode == 0:
        on_the_lab()
    else:
        as_a_plan((check.stdout + check.stderr).strip())


if __name__ == "__main__":
    main()
