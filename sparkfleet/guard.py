"""What pyinfra lets pass and a fleet must not: runs that match no host, that lost their settings, or that were
interrupted and still report success.

`config.py` installs the guard. It plans the whole run while pyinfra connects, in the moments when no host has said
anything, and nothing is asked of any host before the plan stands: a combination that cannot work is refused while
nothing has been touched, and without waiting for a host that does not answer. pyinfra has no hook of its own at that
point (its callbacks are cleared when the state is initialised), hence the wrapped `set_stage` of this run's state.
"""

from __future__ import annotations

import atexit
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click
import gevent
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_state

from sparkfleet import ROOT, exits, facts, secrets, standing
from sparkfleet.errors import FleetError, RefusedError, SettingsError
from sparkfleet.table import width, wrapped

if TYPE_CHECKING:
    from sparkfleet.fleet import FleetRun, Intent

# What a task is for, by its file's name; every other deploy file brings the inventory's releases.
INTENTS: dict[str, Intent] = {
    "rollback.py": "rollback",
    "restart.py": "restart",
    "retire.py": "retire",
    **dict.fromkeys(("status.py", "history.py", "diff.py", "logs.py", "doctor.py"), "look"),
}
# Options of pyinfra's that do other than they promise: why, and what serves instead.
TRAPS = {
    "no_wait": ("reports failed hosts as success", "waves already run their hosts in parallel"),
    "serial": (
        "takes each host through everything before the next",
        "--data batch_size=1 changes one host at a time",
    ),
}
_ROLLING = ("deploy.py", "roll_out.py", "rollback.py", "restart.py")

# What planning needs, each loaded when there is nothing else to do.
_WANTED_TO_PLAN = ("catalog", "lock", "release", "fleet", "inventory")

_planning: gevent.Greenlet[..., None] | None = None
_run: FleetRun | None = None
_settled = False
# Whether pyinfra was asked for JSON, which is all that standard output then holds.
as_json = False
# The settings that the command line gives.
_given: set[str] = set()


def _refuse(error: FleetError) -> NoReturn:
    """End the run with exit code 2 and plain text; a traceback would bury the reason."""
    click.echo(f"{click.style('refused:', fg='red', bold=True)} {error.text()}", err=True)
    sys.exit(exits.REFUSED)


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


def say(text: str) -> None:
    """Print for a person: with --json, standard output is for the machine."""
    click.echo(wrapped(text, width()), err=as_json)


def waves() -> list[list[str]]:
    """Return the waves of the run, planned at the first call from what the nodes said; ends a run that must not start.

    Deploy code runs once per host: all must see the same waves, and the plan is printed once, before any change.
    """
    global _settled
    found = run()
    if not _settled:
        from sparkfleet import fleet, plan

        _settled = True
        try:
            fleet.settle_waves(found)
            say("\n".join(["", *plan.lines(found), ""]))
            _refuse_to_undo_a_roll_back(found)
        except FleetError as error:
            _refuse(error)
    return found.waves


def _refuse_to_undo_a_roll_back(found: FleetRun) -> None:
    """Somebody took these hosts off a release for a reason; going forward again needs a decision in writing."""
    if found.intent != "deploy" or "image_tag" in _given:
        return
    for name in (name for wave in found.waves for name in wave):
        undone = standing.undone(found.fleet_of(name), found.target(name))
        if undone and found.hosts[name].settings.roll_forward != found.wanted(name):
            raise RefusedError(
                f"{name} would roll forward again: {undone}, and the inventory still asks for it",
                "the choice in writing",
                f'to stay, write image_tag = "{(found.fleet_of(name)["release"] or {}).get("image_tag")}" into '
                f'group_data/all.py; to go forward, roll_forward = "{found.wanted(name)}", or give it with --data',
            )


def install() -> None:
    """Guard the run that pyinfra is about to make; called by config.py."""
    global _planning, _run, _settled, _given, as_json
    signal.signal(signal.SIGINT, _on_interrupt)
    parameters = _parameters()
    _planning, _run, _settled = None, None, False
    as_json = bool(parameters.get("json_output"))
    _given = {str(pair).partition("=")[0] for pair in parameters.get("data") or ()}
    if not _is_fleet_run(parameters):
        return
    try:
        secrets.provide()
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
            _await_plan()
            found, answers = run(), facts.ask_all(state)
            silent = {name: {"error": "it cannot be reached"} for name in found.hosts if name not in answers}
            answers |= silent if found.intent == "look" else {}
            found.nodes.update({name: answers[name] for name in found.hosts if name in answers})
            if found.intent == "deploy":
                from sparkfleet import fleetview

                found.findings = fleetview.examine(found, found.started.date())
            _begin(parameters)

    state.set_stage = guarded_set_stage
    atexit.register(_leave_with_code, state)


def _begin(parameters: dict[str, Any]) -> None:
    """Do what concerns the run and not its hosts, where an end ends the process: pyinfra runs deploy files once per
    host, in greenlets, and prints a traceback for each that leaves.
    """
    file = Path(str(parameters["operations"][0]))
    if run().intent == "look":
        runpy.run_path(str(file))
    if file.name in _ROLLING:
        waves()


def _leave_with_code(state: Any) -> None:
    """Say with the exit code how the run ended, after everything else was said: pyinfra itself knows 0 and 1 alone."""
    # Hosts that cannot be reached may end the run before the plan stands.
    _await_plan()
    if _run is None:
        return
    names = [{host.name for host in hosts} for hosts in (state.activated_hosts, state.failed_hosts)]
    code = exits.code_of(_run, *names)
    if code is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _parameters() -> dict[str, Any]:
    context = click.get_current_context(silent=True)
    return dict(context.params) if context else {}


def _is_fleet_run(parameters: dict[str, Any]) -> bool:
    """Deploy files are ours to guard; facts and ad-hoc commands are pyinfra's."""
    operations = tuple(parameters.get("operations") or ())
    return bool(operations) and all(str(operation).endswith(".py") for operation in operations)


def _before_connect(state: Any) -> None:
    global _planning
    hosts = [host for host in state.inventory if state.is_host_in_limit(host)]
    files = [Path(str(operation)).name for operation in _parameters()["operations"]]
    intent = INTENTS.get(files[0], "deploy")
    try:
        if not hosts:
            raise _no_host(_parameters(), state)
        if intent == "retire" and not _parameters().get("limit"):
            raise SettingsError("the whole inventory would be retired", "hosts by name", "add --limit HOST")
    except FleetError as error:
        _refuse(error)
    if intent == "look":
        # A host that cannot be reached is no reason not to see the others.
        state.config.FAIL_PERCENT, state.should_raise_failed_hosts = 100, None
    _planning = gevent.spawn(_plan, hosts, intent)


def _plan(hosts: Sequence[Any], intent: Intent) -> None:
    global _run
    for module in _WANTED_TO_PLAN:
        gevent.idle()
        import_module(f"sparkfleet.{module}")
    from sparkfleet import fleet, inventory

    try:
        _run = fleet.plan_run([inventory.entry(host) for host in hosts], intent)
    except FleetError as error:
        _refuse(error)


def _await_plan() -> None:
    if _planning:
        _planning.get()


def _refuse_traps(parameters: dict[str, Any]) -> None:
    inventory = str(parameters.get("inventory") or "")
    if inventory.endswith(".py") and not Path(inventory).exists():
        present = ", ".join(str(path) for path in sorted(Path("inventory").glob("*.py"))) or "none"
        raise SettingsError(f"there is no inventory file {inventory}", f"one of {present}", "check the path")
    for option, (why, instead) in TRAPS.items():
        if parameters.get(option):
            flag = f"--{option.replace('_', '-')}"
            raise SettingsError(f"{flag} was given, which {why}", "a run without it", f"leave {flag} out; {instead}")


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


def _on_interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Once: no further wave starts, the hosts of this one finish. Twice, or before the first wave: leave at once.

    pyinfra would end with 0; whoever scripted this run must see that it did not finish. Connections need no farewell:
    what runs on a node goes on by itself.
    """
    if _run and _run.intent == "look":
        leave_interrupted()
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
        from sparkfleet import record

        record.write(_run)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exits.INTERRUPTED)
