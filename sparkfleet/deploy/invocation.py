"""pyinfra's command line, read before anything is connected to: what is refused, and what the run says it is for.

pyinfra lets pass what a fleet must not: patterns that match nobody, options that do other than they promise.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sparkfleet.errors import RefusedError, SettingsError, nearest
from sparkfleet.rollout.intents import INTENTS, Intent

Parameters = Mapping[str, Any]

# Options of pyinfra's that do other than they promise: why, and what serves instead.
TRAPS = {
    "no_wait": ("reports failed hosts as success", "waves already run their hosts in parallel"),
    "serial": (
        "takes each host through everything before the next",
        "--data batch_size=1 changes one host at a time",
    ),
    "retry": (
        "repeats a step on a host whose lease is gone",
        "run the same command again: it continues where it stopped",
    ),
    "fail_percent": (
        "continues without hosts that failed, even without the canary",
        "--exclude HOST leaves hosts out, --data max_failures=… lets some fail",
    ),
}
# The same as data, which pyinfra takes for arguments of every operation.
TRAPS_AS_DATA = (
    *("_ignore_errors", "_continue_on_error", "_if", "_run_once", "_serial", "_parallel"),
    *("_retries", "_retry_until", "_timeout", "_success_exit_codes"),
)


def is_fleet_run(parameters: Parameters) -> bool:
    """Deploy files are ours to guard; facts and ad-hoc commands are pyinfra's."""
    operations = tuple(parameters.get("operations") or ())
    return bool(operations) and all(str(operation).endswith(".py") for operation in operations)


def refuse_own_operation(parameters: Parameters) -> None:
    """Raise SettingsError for one of our operations called by its name: without its task nothing was planned."""
    first = str(next(iter(parameters.get("operations") or ()), ""))
    if first.startswith("sparkfleet.deploy.operations") or first.startswith("tasks."):
        raise SettingsError(
            f"{first} was called by itself, without the plan of a run",
            "a deploy file",
            "run deploy.py or one of the files in tasks/",
        )


def refuse_traps(parameters: Parameters) -> None:
    """Raise SettingsError for what cannot work whatever the inventory holds."""
    _refuse_no_inventory(str(parameters.get("inventory") or ""))
    files = [str(file) for file in parameters["operations"]]
    if len(files) > 1:
        raise RefusedError(
            f"{len(files)} deploy files were given: {', '.join(files)}",
            "one a run: a run has one purpose, one plan and one end",
            f"run {files[0]} first, and the next one when it ended well",
        )
    for option, (why, instead) in TRAPS.items():
        if parameters.get(option):
            flag = f"--{option.replace('_', '-')}"
            raise SettingsError(f"{flag} was given, which {why}", "a run without it", f"leave {flag} out; {instead}")


def _refuse_no_inventory(inventory: str) -> None:
    if Path(inventory).is_file():
        return
    present = ", ".join(str(path) for path in sorted(Path("inventory").glob("*.py"))) or "none"
    with_suffix = Path(f"{inventory}.py")
    meant = f"; did you mean {with_suffix}?" if with_suffix.is_file() else ""
    what = f"{inventory} is a folder" if Path(inventory).is_dir() else f"there is no inventory file {inventory}"
    raise SettingsError(
        f"{what}{meant}",
        f"a file: pyinfra reads group_data/ beside files alone, not for host names or functions ({present})",
        "name the file, and single hosts with --limit HOST",
    )


def refuse_data(data: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise SettingsError for host data that would change how every operation runs."""
    for key in TRAPS_AS_DATA:
        names = [name for name, own in data.items() if own.get(key)]
        if names:
            raise SettingsError(
                f"{key} is set for {', '.join(names[:4])}{' …' if len(names) > 4 else ''}, and pyinfra applies it to "
                "every operation of the run",
                "operations that end as they ended",
                f"remove {key} from the inventory, group_data/ and --data",
            )


def refuse_idle_patterns(parameters: Parameters, hosts: Sequence[str], groups: Iterable[str]) -> None:
    """Raise SettingsError for a --limit or --exclude that matches nobody: it is a typo, and pyinfra only warns."""
    known = [*hosts, *(group for group in groups if group != "all")]
    for option in ("limit", "exclude"):
        for pattern in parameters.get(option) or ():
            if pattern in groups or any(fnmatch(name, pattern) for name in hosts):
                continue
            shown = ", ".join(known[:8]) + (f" … ({len(hosts)} hosts)" if len(known) > 8 else "")
            commas = "; repeat the option for several hosts, commas are not understood" if "," in pattern else ""
            raise SettingsError(
                f"no host matches --{option} {pattern}{_likely(pattern, known)}",
                f"a host, a pattern of hosts or a group ({shown or 'the inventory is empty'})",
                f"check the name{commas}",
            )


def _likely(pattern: str, known: Sequence[str]) -> str:
    ends = [name for name in known if name.endswith(f"/{pattern}")]
    return f", did you mean '{ends[0]}'?" if ends else nearest(pattern, list(known))


def file_of(parameters: Parameters) -> Path:
    """Return the deploy file as it is found from here: pyinfra changes into --chdir before it looks."""
    file, folder = str(parameters["operations"][0]), str(parameters.get("chdir") or "")
    if not Path(file).exists() and folder and file.startswith(folder):
        return Path(os.path.relpath(file, folder))
    return Path(file)


def stated(file: Path, seen: frozenset[Path] = frozenset()) -> Intent | None:
    """Return what a deploy file says that it is for, read without running it; None where that is not certain.

    What counts is what it says when it runs. This is read so that what cannot work is refused before a connection.
    """
    found = set(_stated(file, seen))
    return found.pop() if len(found) == 1 else None


def _stated(file: Path, seen: frozenset[Path]) -> Iterator[Intent | None]:
    path = file.resolve()
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        word = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
        if node.func.attr == "intends":
            yield word if word in INTENTS else None
        if node.func.attr == "include" and path not in seen:
            yield stated(Path(str(word)), seen | {path}) if word else None


def no_host(parameters: Parameters) -> SettingsError:
    excluded = ", ".join(parameters.get("exclude") or ())
    found = f"no host is left: --exclude {excluded}" if excluded else "the inventory has no host"
    return SettingsError(
        found, "at least one host", "leave fewer out" if excluded else "enter one: `sparkfleet enroll`"
    )


def refuse_unnamed(parameters: Parameters, hosts: Sequence[str]) -> None:
    """Raise SettingsError unless each host is named itself: a pattern or a group is not a decision about a host."""
    named = set(parameters.get("limit") or ())
    others = [name for name in hosts if name not in named]
    if not others:
        return
    raise SettingsError(
        f"{len(others)} hosts would be retired without being named: {', '.join(others[:4])}"
        + (" …" if len(others) > 4 else ""),
        "each host by its own name, not a pattern or a group",
        f"add --limit HOST for each, e.g. --limit {others[0]}",
    )
