"""`sparkfleet deploy|status|…`: pyinfra under one name. Prints the command that it becomes and adds nothing."""

from __future__ import annotations

import ast
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from sparkfleet import ROOT
from sparkfleet.errors import FleetError

INVENTORY = "SPARKFLEET_INVENTORY"
# What `sparkfleet.report.console` reads; pyinfra has no option of its own for it.
QUIET = "SPARKFLEET_QUIET"
DEFAULT_INVENTORY = "inventory/prod.py"
# In the order in which an operator meets them.
TASKS = {
    "deploy": "deploy.py",
    **{
        name: f"tasks/{name}.py"
        for name in (
            *("preflight", "stage", "status", "history", "diff", "logs", "rollback", "restart"),
            *("verify", "prune", "repair", "doctor", "retire"),
        )
    },
}


def purpose(name: str) -> str:
    """Return the first sentence of what a task's file says of itself."""
    text = ast.get_docstring(ast.parse((ROOT / TASKS[name]).read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def command(name: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> list[str]:
    """Return pyinfra's command line for a task, to be run in the repository's root.

    :param arguments: `-i FILE` or `--inventory FILE`, and pyinfra's own options
    :param folder: where the person stands, which a path is relative to
    """
    inventory, rest = environment.get(INVENTORY) or DEFAULT_INVENTORY, []
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in ("-i", "--inventory"):
            inventory = value if equals else next(words, "")
        else:
            rest.append(word)
    return ["pyinfra", _from_root(inventory, folder), TASKS[name], *rest]


def run(name: str, arguments: Sequence[str]) -> NoReturn:
    """Become pyinfra. Raises FleetError where it is not installed."""
    quiet = [word for word in arguments if word in ("-q", "--quiet")]
    words = command(name, [word for word in arguments if word not in quiet], os.environ, Path.cwd())
    if quiet:
        os.environ[QUIET] = "1"
    # On a stream of its own, since a task's --json is a document on the other.
    print(f"$ {f'{QUIET}=1 ' * bool(quiet)}{shlex.join(words)}", file=sys.stderr, flush=True)
    program = Path(sys.executable).with_name("pyinfra")
    if not program.exists():
        raise FleetError(f"{program} is missing", "pyinfra beside this Python", f"run `make setup` in {ROOT}")
    os.chdir(ROOT)
    os.execv(program, [str(program), *words[1:]])


def overview(own: Mapping[str, str]) -> str:
    """Return every command with a line each: those on hosts, and those that connect to nothing."""
    width = max(map(len, [*TASKS, *own])) + 2
    on_hosts = [f"  {name:{width}}{purpose(name)}" for name in TASKS]
    alone = [f"  {name:{width}}{text}" for name, text in own.items()]
    return "\n".join(
        [
            f"sparkfleet {version('sparkfleet')}: fleets of NVIDIA DGX Spark machines that serve language models",
            "",
            f"on the hosts of {DEFAULT_INVENTORY} (or -i FILE, or {INVENTORY}), with pyinfra's options:",
            *on_hosts,
            "",
            "without a connection (enroll alone makes one):",
            *alone,
        ]
    )


def _from_root(inventory: str, folder: Path) -> str:
    path = (folder / inventory).resolve()
    if not inventory or not path.is_file():
        return inventory
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
