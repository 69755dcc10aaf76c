"""A newcomer's path: a clone of what is committed, `make demo`, then README.md's commands from top to bottom.

They run as they stand there, in a shell, with a person's Enter on standard input. The inventory and the hosts' names
are the lab's; what else differs, and what is run elsewhere, is named below, and nothing in that list may go stale. The
clone uses the environment of this checkout: a fresh one is what CI made before it came here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.config import LAB_DIR

ROOT = Path(__file__).resolve().parents[3]
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


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("newcomer") / "sparkfleet"
    if (ROOT / ".git").exists():
        clone = ["git", "-c", "safe.directory=*", "clone", "--quiet", str(ROOT), str(folder)]
        subprocess.run(clone, check=True, timeout=60)
    else:
        # An archive of the repository is a way to get it, too.
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".venv", ".lab", ".sparkfleet", "*_cache"))
    (folder / ".venv").symlink_to(Path(sys.prefix))
    # Older than the environment, or make would build it anew.
    os.utime(folder / "pyproject.toml", (0, 0))
    yield folder
    subprocess.run([sys.executable, "-m", "tests.lab", "down"], cwd=folder, check=True, timeout=120)


@pytest.mark.parametrize("command", TYPED)
def test_a_command(clone: Path, command: str) -> None:
    words = INSTEAD.get(command, command)
    words = f"pyinfra inventory/prod.py {words}" if words.startswith("tasks/") else words
    for there, here in IN_THE_LAB.items():
        words = words.replace(there, here)
    words = words.replace("=ID", f"""=$({SHOW} | python -c 'import json, sys; print(json.load(sys.stdin)["id"])')""")
    # The path of a checkout that is installed there would win over the folder that pyinfra is started in.
    environment = {**os.environ, "PATH": f"{clone}/.venv/bin:{os.environ['PATH']}", "PYTHONPATH": str(clone)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", words],
        cwd=clone,
        env=environment,
        input="\n" * 3,
        capture_output=True,
        text=True,
        timeout=420,
        check=False,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0, f"{words}\n{said[-3000:]}"
    assert SAYS.get(command, "") in said, f"{words}\n{said[-3000:]}"
    assert said.strip()
