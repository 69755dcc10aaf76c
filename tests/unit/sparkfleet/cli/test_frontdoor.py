"""`sparkfleet NAME`: which pyinfra command it becomes, and what it lists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparkfleet import ROOT
from sparkfleet.cli import frontdoor
from sparkfleet.rollout import exit_codes
from tests.plan.harness import FakeFleet, own_command

PROD = "inventory/prod.py"


@pytest.mark.parametrize(
    ("arguments", "environment", "folder", "becomes"),
    [
        ([], {}, ROOT, [PROD]),
        (["-y", "--limit", "spark-1"], {}, ROOT, [PROD, "-y", "--limit", "spark-1"]),
        (["-i", "inventory/lab.py", "--dry"], {}, ROOT, ["inventory/lab.py", "--dry"]),
        (["--inventory=lab.py"], {}, ROOT / "inventory", ["inventory/lab.py"]),
        ([], {frontdoor.INVENTORY: "inventory/lab.py"}, ROOT, ["inventory/lab.py"]),
        ([], {frontdoor.INVENTORY: ""}, ROOT, [PROD]),
        (["-i", PROD], {frontdoor.INVENTORY: "inventory/lab.py"}, ROOT, [PROD]),
        (["-i", "@local,spark-2"], {}, ROOT, ["@local,spark-2"]),
        (
            ["--data", "image_tag=a", "--data", "soak_s=1"],
            {},
            ROOT,
            [PROD, "--data", "image_tag=a", "--data", "soak_s=1"],
        ),
    ],
)
def test_a_name_becomes_pyinfras_command(
    arguments: list[str], environment: dict[str, str], folder: Path, becomes: list[str]
) -> None:
    for name, file in frontdoor.TASKS.items():
        inventory, *rest = becomes
        assert frontdoor.command(name, arguments, environment, folder) == ["pyinfra", inventory, file, *rest]


def test_every_task_has_a_name_and_every_name_a_task() -> None:
    files = {f"tasks/{path.name}" for path in (ROOT / "tasks").glob("*.py")} | {"deploy.py"}
    assert set(frontdoor.TASKS.values()) == files - {"tasks/__init__.py"}
    assert all(len(frontdoor.purpose(name)) > 20 for name in frontdoor.TASKS)


def test_alone_it_lists_every_command_and_is_content() -> None:
    done = own_command()
    assert done.returncode == 0, done.stderr
    for name in (*frontdoor.TASKS, "lock", "show", "enroll", "validate", "explain"):
        assert f"\n  {name} " in done.stdout
    assert own_command("--version").stdout.startswith("sparkfleet ")


def test_a_shell_completes_the_commands() -> None:
    done = own_command("completion", "bash")
    assert done.returncode == 0, done.stderr
    checked = subprocess.run(["bash", "-n"], input=done.stdout, text=True, capture_output=True, timeout=20, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "rollback" in done.stdout


def test_it_is_the_same_run_from_any_folder(tmp_path: Path) -> None:
    inventory = FakeFleet(tmp_path, ["spark-1", "spark-2"]).write()
    program = [str(Path(sys.executable).with_name("sparkfleet")), "preflight", "-i", inventory.name, "--dry"]
    done = subprocess.run(program, cwd=inventory.parent, capture_output=True, text=True, timeout=120, check=False)
    assert f"$ pyinfra {inventory} tasks/preflight.py --dry" in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_command_that_is_none_is_refused_with_the_known_ones() -> None:
    done = own_command("deplyo")
    assert done.returncode == 2
    assert "deploy" in done.stderr
    assert "Traceback" not in done.stderr


def test_quiet_is_a_variable_that_the_printed_command_names() -> None:
    done = own_command("deploy", "-q", "--dry")
    assert done.returncode == exit_codes.REFUSED, done.stderr
    assert done.stderr.startswith(f"$ SPARKFLEET_QUIET=1 pyinfra {PROD} deploy.py --dry\n")
    assert "Could not resolve" in done.stderr
    assert "all 4 hosts: terms:" in done.stderr
