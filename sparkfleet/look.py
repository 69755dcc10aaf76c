"""The tasks that only look. Each prints once for all hosts and ends the run there: nothing is left to confirm.

With pyinfra's --json the same is one JSON document on standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import click
import gevent
from pyinfra.api import Host, StringCommand
from pyinfra.context import ctx_state

from sparkfleet import guard, report
from sparkfleet.differences import differences
from sparkfleet.errors import FleetError
from sparkfleet.fleet import FleetRun

HISTORY = ("when", "host", "who", "what", "from", "to", "outcome", "took", "why")
LOG_UNITS = ("sparkfleet-serve.service", "sparkfleet-activate.service", "sparkfleet-watch.service")
LOG_LINES = 50


def status() -> NoReturn:
    """What every host serves, and how well."""
    _show(report.print_table, lambda run: {name: _summary(run, name) for name in run.nodes})


def _summary(run: FleetRun, name: str) -> dict[str, Any]:
    node = run.nodes[name]
    fleet = run.fleet_of(name)
    row = dict(zip(report.HEADINGS, report.host_row(name, node), strict=True))
    return {**row, "drift": report.drift(fleet), "remarks": report.remarks(name, node), "fleet": fleet}


def history() -> NoReturn:
    """What was activated where, by whom, and how it ended; oldest first."""
    _show(lambda run: click.echo("\n".join(report.table(HISTORY, history_rows(run.nodes)))), _histories)


def _histories(run: FleetRun) -> dict[str, Any]:
    return {name: run.fleet_of(name).get("history") or [] for name in run.nodes}


def history_rows(nodes: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a row for each activation of the hosts, in the order of HISTORY."""
    found = [(name, row) for name, node in nodes.items() for row in (node.get("fleet") or {}).get("history") or ()]
    return [
        (
            str(row.get("t"))[:19],
            name,
            str(row.get("operator")),
            row.get("intent") or "deploy",
            str(row.get("from") or "nothing")[:8],
            str(row.get("release"))[:8],
            str(row.get("state")),
            f"{row['seconds']:.0f} s" if row.get("seconds") is not None else report.NONE,
            next(iter(str(row.get("error") or "").splitlines()), ""),
        )
        for name, row in sorted(found, key=lambda pair: str(pair[1].get("t")))
    ]


def diff() -> NoReturn:
    """What a deploy would change, and what on a host is not what its release says."""

    def text(run: FleetRun) -> None:
        for name, found in _differences(run).items():
            click.echo(f"{name}:")
            for kind, lines in found.items():
                for line in lines or ["nothing"]:
                    click.echo(f"  {kind}: {line}")

    _show(text, _differences)


def _differences(run: FleetRun) -> dict[str, dict[str, list[str]]]:
    return {name: {"a deploy changes": _pending(run, name), "drift": _drifted(run, name)} for name in run.nodes}


def _pending(run: FleetRun, name: str) -> list[str]:
    try:
        wanted = run.target(name)
    except FleetError as error:
        return [f"not known: {error.found}"]
    old = run.fleet_of(name).get("release")
    return differences(old, wanted) if not old or old["id"] != wanted["id"] else []


def _drifted(run: FleetRun, name: str) -> list[str]:
    node = run.nodes[name]
    return [str(node["error"])] if "error" in node else report.drift(run.fleet_of(name))


def logs() -> NoReturn:
    """What the engines write, each line with its host; followed on a terminal, the last lines in a pipe."""
    follow = sys.stdout.isatty()
    units = [part for unit in LOG_UNITS for part in ("-u", unit)]
    words = ["journalctl", "--no-pager", "-o", "short-iso", "-n", str(LOG_LINES), *units, *(["-f"] if follow else [])]

    def read(host: Host) -> list[str]:
        _, output = host.run_shell_command(StringCommand(*words), _sudo=True, print_output=follow)
        return [] if follow else [line.line for line in output]

    def text(_: FleetRun) -> None:
        for name, lines in everything().items():
            for line in lines:
                click.echo(f"{name}: {line}")

    def everything() -> dict[str, list[str]]:
        state = ctx_state.get()
        readers = {host.name: gevent.spawn(read, host) for host in state.activated_hosts}
        return {name: reader.get() for name, reader in sorted(readers.items())}

    _show(text, lambda _: everything())


def _show(text: Callable[[FleetRun], None], document: Callable[[FleetRun], Mapping[str, Any]]) -> NoReturn:
    run = guard.run()
    if guard.as_json:
        click.echo(json.dumps(document(run), ensure_ascii=False, indent=1))
    else:
        text(run)
    sys.exit(0)
