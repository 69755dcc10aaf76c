"""What pyinfra lets pass and a fleet must not: runs that match no host, that lost their settings, or that were
interrupted and still report success.

`config.py` installs the guard. It plans the whole run after the inventory is read and before the first connection,
so that a combination that cannot work is refused while nothing has been touched. pyinfra has no hook of its own at
that point (its callbacks are cleared when the state is initialised), hence the wrapped `set_stage` of this run's state.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_state

from sparkfleet import facts, fleetview, record
from sparkfleet.catalog import ROOT
from sparkfleet.errors import FleetError, SettingsError
from sparkfleet.fleet import FleetRun, HostEntry, plan_run, settle_waves

EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

_run: FleetRun | None = None
_settled = False


def _refuse(error: FleetError) -> NoReturn:
    """End the run with exit code 2 and plain text; a traceback would bury the reason."""
    click.echo(f"{click.style('refused:', fg='red', bold=True)} {error.text()}", err=True)
    sys.exit(EXIT_REFUSED)


def run() -> FleetRun:
    """Return the plan of the run that is under way.

    Raises PyinfraError when config.py was not loaded: pyinfra was started in another folder.
    """
    if _run is None:
        raise PyinfraError(
            f"config.py was not loaded, and with it group_data/: found the working folder {Path.cwd()}, expected "
            f"{ROOT}; next: cd {ROOT} and run the command again (or give pyinfra --chdir)"
        )
    return _run


def waves() -> list[list[str]]:
    """Return the waves of the run, planned at the first call from what the nodes said; ends a run that must not start.

    Deploy code runs once per host: all must see the same waves.
    """
    global _settled
    found = run()
    if not _settled:
        _settled = True
        try:
            settle_waves(found)
        except FleetError as error:
            _refuse(error)
    return found.waves


def install() -> None:
    """Guard the run that pyinfra is about to make; called by config.py."""
    global _run, _settled
    _run, _settled = None, False
    signal.signal(signal.SIGINT, _on_interrupt)
    parameters = _parameters()
    if not _is_fleet_run(parameters):
        return
    try:
        _refuse_traps(parameters)
    except FleetError as error:
        _refuse(error)
    state = ctx_state.get()
    set_stage = state.set_stage

    def guarded_set_stage(stage: StateStage) -> None:
        if stage == StateStage.Connect:
            _before_connect(state)
        set_stage(stage)
        if stage == StateStage.Prepare:
            found = run()
            found.nodes.update(facts.ask_all(state))
            found.findings = fleetview.examine(found, found.started.date())

    state.set_stage = guarded_set_stage


def _parameters() -> dict[str, Any]:
    context = click.get_current_context(silent=True)
    return dict(context.params) if context else {}


def _is_fleet_run(parameters: dict[str, Any]) -> bool:
    """Deploy files are ours to guard; facts and ad-hoc commands are pyinfra's."""
    operations = tuple(parameters.get("operations") or ())
    return bool(operations) and all(str(operation).endswith(".py") for operation in operations)


def _before_connect(state: Any) -> None:
    global _run
    try:
        hosts = [host for host in state.inventory if state.is_host_in_limit(host)]
        if not hosts:
            raise _no_host(_parameters(), state)
        _run = plan_run([_entry(host) for host in hosts])
    except FleetError as error:
        _refuse(error)


def _refuse_traps(parameters: dict[str, Any]) -> None:
    inventory = str(parameters.get("inventory") or "")
    if inventory.endswith(".py") and not Path(inventory).exists():
        present = ", ".join(str(path) for path in sorted(Path("inventory").glob("*.py"))) or "none"
        raise SettingsError(f"there is no inventory file {inventory}", f"one of {present}", "check the path")
    if parameters.get("no_wait"):
        raise SettingsError(
            "--no-wait was given, which reports failed hosts as success",
            "a run without it",
            "leave --no-wait out; waves already run their hosts in parallel",
        )
    if parameters.get("serial"):
        raise SettingsError(
            "--serial was given, which takes each host through everything before the next",
            "a run without it",
            "leave --serial out; --data batch_size=1 changes one host at a time",
        )


def _no_host(parameters: dict[str, Any], state: Any) -> SettingsError:
    names = ", ".join(host.name for host in state.inventory) or "none"
    groups = ", ".join(sorted(group for group in state.inventory.groups if group != "all"))
    limit = ", ".join(parameters.get("limit") or ()) or "no --limit"
    exclude = ", ".join(parameters.get("exclude") or ())
    return SettingsError(
        f"no host matches (--limit: {limit}{f', --exclude: {exclude}' if exclude else ''})",
        f"a host ({names}), a pattern, or a group ({groups})",
        "repeat --limit for several hosts; commas are not understood",
    )


def _entry(host: Any) -> HostEntry:
    data = host.data.dict()
    address = str(data.get("ssh_hostname") or host.name)
    return HostEntry(
        name=host.name,
        address=f"{address}:{data.get('ssh_port') or 22}",
        groups=tuple(host.groups),
        data=data,
    )


def _on_interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Once: no further wave starts, the hosts of this one finish. Twice, or before the first wave: leave at once.

    pyinfra would end with 0; whoever scripted this run must see that it did not finish. Connections need no farewell:
    what runs on a node goes on by itself.
    """
    progress = _run.progress if _run else None
    if _run and progress and progress.begun and not progress.interrupted:
        progress.interrupted = True
        progress.stop(f"interrupted by {_run.operator}")
        click.echo(
            "\ninterrupted: no further wave starts; waiting for the hosts that are being activated. "
            "Once more leaves at once: they finish or go back by themselves.",
            err=True,
        )
        return
    click.echo(
        "\ninterrupted: no further wave starts. A host that is being activated finishes or goes back by itself; "
        "run the same command again to converge.",
        err=True,
    )
    leave_interrupted()


def leave_interrupted() -> NoReturn:
    """End the process at once; pyinfra's own end would report success, or a failed host."""
    if _run and _run.progress.begun:
        record.write(_run)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)
