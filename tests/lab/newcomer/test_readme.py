"""A newcomer's path on a fresh machine: a clone of what is committed, `make demo`, then README.md's commands in order.

They run as they stand there, in a shell, with a person's Enter on standard input, on a Debian that has Python, git and
make and nothing of ours. The inventory and the hosts' names are the lab's; what else differs, and what is run
elsewhere, is named below, and nothing in that list may go stale.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.config import LAB_DIR, ROOT
from tests.lab.newcomer.machine import Machine, fresh

README = (ROOT / "README.md").read_text(encoding="utf-8")
# From the first command that a newcomer types to where the text turns to reference.
PART = README[README.index("## Two commands") : README.index("## Exit codes")]
_TYPED = re.compile(
    r"^ {4,}((?:make|pyinfra|python|git) [^#\n]+)|`((?:make|pyinfra|python|tasks/)\b[^`\n]*)`", re.MULTILINE
)
COMMANDS = list(dict.fromkeys((block or inline).strip() for block, inline in _TYPED.findall(PART)))

IN_THE_LAB = {"inventory/prod.py": "inventory/lab.py", "spark-01.local": "spark-1", "NAME": "spark-2"}
SHOW = "python -m sparkfleet show spark-1 --inventory inventory/lab.py --format json"
INSTEAD = {
    # Two hosts are enough, and the real engine has cases of its own.
    "make lab-up ENGINE=vllm NODES=2": "make lab-up NODES=2",
    "git add fleet.lock.json": f"test -s {LAB_DIR.name}/fleet.lock.json && echo the lab keeps its lock there",
    "python -m sparkfleet lock --check": "python -m sparkfleet lock --check --inventory inventory/lab.py",
}
ELSEWHERE = {
    "make test": "it is what runs this",
    "make setup": "CI's first step",
    # The lab has one tag and one hub of its own, and not what every row of the catalogue names.
    "python -m sparkfleet catalog check --online": "tests/unit/sparkfleet/cli/test_catalog_online.py",
    "python -m sparkfleet enroll NAME --inventory inventory/prod.py --write": "tests/lab/cases/test_operators_day.py",
}
TYPED = [command for command in COMMANDS if command not in ELSEWHERE]
SAYS = {
    "make demo": "done: four servers, an upgrade, a rollback and a new node",
    "pyinfra inventory/prod.py deploy.py": "2 committed",
    "pyinfra inventory/prod.py tasks/rollback.py": "2 committed",
    "pyinfra inventory/prod.py tasks/restart.py": "2 committed",
    "pyinfra inventory/prod.py tasks/retire.py --limit NAME": "retired; left: ",
    "pyinfra inventory/prod.py tasks/status.py": "spark-2  verified",
    "pyinfra inventory/prod.py tasks/doctor.py --limit NAME": "spark-2: bundle: ",
}


def test_every_exception_is_a_command_of_the_readme() -> None:
    assert set(INSTEAD) | set(ELSEWHERE) | set(SAYS) <= set(COMMANDS)
    assert COMMANDS[0] == "make demo"
    assert len(COMMANDS) > 25


CLONE = "/root/sparkfleet"


@pytest.fixture(scope="module")
def newcomer() -> Iterator[Machine]:
    with fresh() as machine:
        folder = machine.root / CLONE.lstrip("/")
        if (ROOT / ".git").exists():
            clone = ["git", "-c", "safe.directory=*", "clone", "--quiet", str(ROOT), str(folder)]
            subprocess.run(clone, check=True, timeout=60)
        else:
            # An archive of the repository is a way to get it, too.
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".venv", ".lab*", ".sparkfleet", "*_cache"))
        try:
            yield machine
        finally:
            down = machine.run(f"test ! -e .venv/bin/python || {PYTHON} -m tests.lab down", CLONE, timeout_s=120)
            assert down.returncode == 0, down.stdout + down.stderr


PYTHON = ".venv/bin/python"


@pytest.mark.parametrize("command", TYPED)
def test_a_command(newcomer: Machine, command: str) -> None:
    words = INSTEAD.get(command, command)
    words = f"pyinfra inventory/prod.py {words}" if words.startswith("tasks/") else words
    for there, here in IN_THE_LAB.items():
        words = words.replace(there, here)
    words = words.replace("=ID", f"""=$({SHOW} | python -c 'import json, sys; print(json.load(sys.stdin)["id"])')""")
    # The first command installs packages, makes the environment and, once on this machine, the lab's root file systems.
    done = newcomer.run(words, CLONE, timeout_s=900 if command == COMMANDS[0] else 420, path=f"{CLONE}/.venv/bin:")
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0, f"{words}\n{said[-3000:]}"
    assert SAYS.get(command, "") in said, f"{words}\n{said[-3000:]}"
    assert said.strip()


def test_the_first_command_installed_what_it_needed(newcomer: Machine) -> None:
    done = newcomer.run("make system; command -v aria2c skopeo docker-registry", CLONE, timeout_s=60)
    assert done.returncode == 0, done.stderr
    assert "setup:" not in done.stdout
