"""What a run prints: the findings before it, the table of the fleet and the outcome at its end."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import click
from pyinfra.api.state import BaseStateCallback
from pyinfra.context import ctx_state

from sparkfleet.deploy import hooks, session
from sparkfleet.preflight import preflight
from sparkfleet.report import fleet_table, record
from sparkfleet.rollout import compare, fleetview
from sparkfleet.rollout.fleet_run import FleetRun
from sparkfleet.text import fitted, width


def print_table(run: FleetRun) -> None:
    """Print the fleet as it was last seen; a pipe gets every column and no colour."""
    rows = fleet_table.arranged([fleet_table.host_row(run, name) for name in run.hosts if name in run.nodes])
    terminal = sys.stdout.isatty()
    lines = fitted(fleet_table.HEADINGS, rows, width(), fleet_table.DISPENSABLE)
    session.say("")
    session.say(click.style(lines[0], bold=True) if terminal else lines[0])
    for row, line in zip(rows, lines[1:], strict=True):
        session.say(click.style(line, fg=fleet_table.COLORS.get(row[1], "red")) if terminal else line)
    session.say("")
    said = [*fleet_table.all_remarks(run), *fleet_table.proofs(run)]
    for text in [*said, ""] if said else []:
        session.say(text)


def print_roll_out(run: FleetRun) -> None:
    """Print the comparison, if there was one, how each host ended that did not go well, and the rollout in a line."""
    progress = run.progress
    if progress.comparison:
        for line in fitted(compare.HEADINGS, compare.cells(progress.comparison), width(), ("allowed", "canary")):
            session.say(line)
        session.say("")
    for name in progress.failures():
        session.say(f"{name}: {record.ending(run, name)}", keep=True)
    for line in record.summary(run):
        session.say(line, keep=True)
    session.say(f"report: {record.write(run).with_suffix('.html')}, the same as .json beside it", keep=True)
    complaint = hooks.call(run, "post-rollout")
    session.say(complaint or "", keep=bool(complaint))


@cache
def print_findings(*, alone: bool) -> None:
    """Print what was found on the hosts, once a run; alone, also what is good to know, and the fleet at a glance."""
    run = session.run()
    lines = preflight.digest(run.findings, "info" if alone else "warn")
    if alone:
        lines += ["", *fitted(fleetview.HEADINGS, fleetview.rows(run), width(), fleetview.DISPENSABLE)]
        lines.append(f"as JSON: {record.save(record.path(run).with_name('preflight.json'), fleetview.document(run))}")
    unfit = not all(preflight.fit(found) for found in run.findings.values())
    # In a deploy they follow its plan.
    for line in [*[""] * alone, *lines, ""] if lines else []:
        session.say(line, keep=alone or unfit)


class _AtTheEnd(BaseStateCallback):
    """Prints the table when the last host disconnects: the one moment that also comes when a wave stopped the run."""

    def __init__(self, run: FleetRun) -> None:
        self.run = run
        self.left = 0

    def host_disconnect(self, state: Any, host: Any) -> None:  # type: ignore[override]  # pyinfra calls it bound
        self.left += 1 if host.name in self.run.hosts else 0
        if self.left != len(state.activated_hosts):
            return
        if session.current().parameters.get("dry"):
            # The plan said what every host serves; so both fit one screen.
            for text in fleet_table.all_remarks(self.run):
                session.say(text)
            return
        print_table(self.run)
        if self.run.progress.begun:
            self.run.progress.leases.clear()
            print_roll_out(self.run)


def print_at_end() -> None:
    """Arrange for the table of this run; calls after the first change nothing (deploy code runs once per host)."""
    state = ctx_state.get()
    if not any(isinstance(handler, _AtTheEnd) for handler in state.callback_handlers):
        state.add_callback_handler(_AtTheEnd(session.run()))
