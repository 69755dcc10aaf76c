"""The tasks that only look. Each prints once for all hosts and ends the run there: nothing is left to confirm.

With pyinfra's --json the same is one JSON document on standard output.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import click
import gevent
from pyinfra.api import Host, StringCommand
from pyinfra.context import ctx_state

from sparkfleet import grouping
from sparkfleet.deploy import ending, session
from sparkfleet.errors import FleetError
from sparkfleet.node import facts
from sparkfleet.release.differences import differences
from sparkfleet.report import fleet_table, record
from sparkfleet.rollout import exit_codes, fleetview
from sparkfleet.rollout.fleet_run import FleetRun
from sparkfleet.text import fitted, width, wrapped
from sparknode.base.shape import written
from sparknode.state.status import Ended

HISTORY = ("when", "host", "who", "what", "from", "to", "outcome", "took")
LOG_UNITS = ("sparkfleet-serve.service", "sparkfleet-activate.service", "sparkfleet-watch.service")
LOG_LINES = 50

T = TypeVar("T")


def status() -> NoReturn:
    """What every host serves, and how well."""
    run = session.run()
    if not session.as_json():
        ending.print_table(run)
    _end({name: {**_summary(run, name), "proven": fleet_table.proven(run, name)} for name in run.nodes})


def _summary(run: FleetRun, name: str) -> dict[str, Any]:
    row = dict(zip(fleet_table.HEADINGS, fleet_table.host_row(run, name), strict=True))
    found = {"drift": fleet_table.drift(run.status(name)), "remarks": fleet_table.remarks(run, name)}
    return {**row, **found, "fleet": written(run.status(name)) if run.nodes[name].facts else {}}


def history() -> NoReturn:
    """What was activated where, by whom, and how it ended; oldest first."""
    found = {name: node.history for name, node in session.run().statuses().items()}
    text = "\n".join([*history_lines(found, width()), *_silent()])
    _end({name: written(ended) for name, ended in found.items()}, text)


def history_lines(histories: Mapping[str, Sequence[Ended]], columns: int | None) -> list[str]:
    """Return a line for each activation of the hosts, and below it why it did not end well."""
    found = [(name, one) for name, ended in histories.items() for one in ended]
    found.sort(key=lambda pair: (str(pair[1].t), pair[0]))
    rows = [
        (
            str(one.t)[:19],
            name,
            str(one.operator),
            one.intent or "deploy",
            (one.before or "nothing")[:8],
            str(one.release)[:8],
            one.state,
            fleet_table.NONE if one.seconds is None else f"{one.seconds:.0f} s",
        )
        for name, one in found
    ]
    whys = [next(iter((one.error or "").splitlines()), "") for _, one in found]
    heading, *lines = fitted(HISTORY, rows, columns, ("what", "from", "who"))
    told = ([line, f"    {why}"] if why else [line] for line, why in zip(lines, whys, strict=True))
    return [heading, *(part for parts in told for part in parts)]


def diff() -> NoReturn:
    """What a deploy would change, and what on a host is not what its release says."""
    run = session.run()
    found = {name: {"a deploy changes": _pending(run, name), "drift": _drifted(run, name)} for name in run.nodes}
    lines = [
        "\n".join([f"{name}:", *(f"  {kind}: {line}" for kind, said in kinds.items() for line in said or ["nothing"])])
        for name, kinds in found.items()
    ]
    _end(found, "\n".join(lines))


def _pending(run: FleetRun, name: str) -> list[str]:
    try:
        wanted = run.target(name)
    except FleetError as error:
        return [f"not known: {error.found}"]
    old = run.status(name).release
    return differences(old, wanted) if not old or old.id != wanted.id else []


def _drifted(run: FleetRun, name: str) -> list[str]:
    if not run.nodes[name].facts:
        return [run.nodes[name].error]
    node = run.status(name)
    odd = node.current != node.verified and node.activation is None
    links = f"links: current is {node.current or 'no release'}, verified is {node.verified or 'no release'}"
    return fleet_table.drift(node) + [links] * odd


def logs() -> NoReturn:
    """What the engines write, each line with its host; followed on a terminal, the last lines in a pipe."""
    follow = sys.stdout.isatty()
    units = [part for unit in LOG_UNITS for part in ("-u", unit)]
    words = ["journalctl", "--no-pager", "-o", "short-iso", "-n", str(LOG_LINES), *units, *["-f"] * follow]

    def read(host: Host) -> list[Any]:
        return list(host.run_shell_command(StringCommand(*words), _sudo=True, print_output=follow)[1].output_lines)

    found = _from_each(read)
    written = [f"{name}: {line}" for name, lines in found.items() for line in lines]
    _end(found, "\n".join([*written, *_silent()]))


def doctor() -> NoReturn:
    """What the preflight says of every host, and a bundle of each for whoever helps; 1 where one could not be had.

    A host whose release cannot be compiled is not judged, and gives its bundle all the same.
    """
    run = session.run()
    judged = {name: plan for name, plan in run.hosts.items() if not isinstance(plan.made, FleetError)}
    run.findings = fleetview.examine(replace(run, hosts=judged), run.started.date())
    if not session.as_json():
        ending.print_findings(alone=True)
    found = {row["host"]: row for row in fleetview.document(run)["hosts"]}
    for name, plan in run.hosts.items():
        if isinstance(plan.made, FleetError):
            found[name] = {"not judged": plan.made.found}
    for name, (line, why) in _from_each(lambda host: facts.answer(host, "collect | base64 -w0")).items():
        found[name] |= _keep(run, name, line) if line else {"no bundle": why}
    said = ("not judged", "bundle", "no bundle")
    lines = [f"{name}: {word}: {row[word]}" for name, row in found.items() for word in said if word in row]
    _end(found, "\n".join(lines), int(any("no bundle" in row for row in found.values())))


def _keep(run: FleetRun, name: str, line: str) -> dict[str, str]:
    """Write a bundle for its owner's eyes alone; return where it is, or why it is not."""
    folder = record.path(run).parent.with_name("support")
    path = folder / f"{run.started:%Y%m%dT%H%M%SZ}-{name.replace('/', '-')}.tar.gz"
    try:
        content = base64.b64decode(line, validate=True)
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
    except ValueError:
        return {"no bundle": f"the node's program answered {line[:120]!r}"}
    except OSError as error:
        return {"no bundle": f"{error}; next: set runs_dir to a folder that can be written"}
    return {"bundle": str(path)}


def _from_each(read: Callable[[Host], T]) -> dict[str, T]:
    """Return what every connected host gives, all asked at once."""
    hosts = sorted(ctx_state.get().activated_hosts, key=lambda host: str(host.name))
    readers = {str(host.name): gevent.spawn(read, host) for host in hosts}
    return {name: reader.get() for name, reader in readers.items()}


def _end(document: Mapping[str, Any], text: str = "", code: int = 0) -> NoReturn:
    if session.as_json():
        click.echo(json.dumps(document, ensure_ascii=False, indent=1))
    elif text:
        click.echo(wrapped(text, width()))
    if remedy := session.current().how_to_reach():
        click.echo(wrapped(f"next: {remedy}", width()), err=True)
    session.end(exit_codes.of_a_look(session.run().nodes, code))


def _silent() -> list[str]:
    """Return who gave no answer, and why: what is told about the others must not pass for the whole fleet."""
    nodes = session.run().nodes
    missing = [(name, node.error) for name, node in nodes.items() if not node.facts]
    return [f"no answer: {line}" for line in grouping.lines(missing, len(nodes))]
