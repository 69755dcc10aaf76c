"""One run of pyinfra over the fleet: what it is for, its plan, and how the process ends.

`config.py` begins the session. The whole run is planned while pyinfra connects, and nothing is asked of any host before
the plan stands: a combination that cannot work is refused while nothing has been touched, and without waiting for a
host that does not answer. pyinfra has no hook of its own at these points (its callbacks are cleared when the state is
initialised), hence the two methods of this run's state that are wrapped.

A task states its purpose (`session.intends`), and each operation asks for it where it acts (`session.require`). The
session is an attribute of pyinfra's state, so that it begins and ends with the run. An end leaves the process at
once: pyinfra runs deploy files once per host, in greenlets, and would print a traceback for each.
"""

from __future__ import annotations

import atexit
import builtins
import json
import os
import runpy
import signal
from collections.abc import Callable, Collection
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click
import gevent
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_host, ctx_state

from sparkfleet import ROOT, secrets
from sparkfleet.deploy import invocation
from sparkfleet.errors import FleetError, RefusedError
from sparkfleet.node import facts, files_open
from sparkfleet.report import console
from sparkfleet.rollout import exit_codes
from sparkfleet.rollout.intents import FROM_INVENTORY, ROLLING, Intent
from sparkfleet.text import some, width, wrapped

if TYPE_CHECKING:
    from sparkfleet.report.console import Chorus
    from sparkfleet.rollout.fleet_run import FleetRun

# What planning needs, and what a run needs once its hosts have answered; each is loaded while nothing else is to do.
_WANTED_TO_PLAN = ("catalog.catalog", "release.lockfile", "release.release", "rollout.fleet_run", "inventory.inventory")
_WANTED_NEXT = (
    *("preflight.preflight", "rollout.fleetview", "rollout.plan", "report.record", "deploy.operations"),
    "deploy.ending",
)
_ATTRIBUTE = "sparkfleet_session"
UNREACHED = "it cannot be reached"


class Session:
    """The run that is under way: pyinfra's state and parameters, the plan, and what was stated and found so far."""

    def __init__(self, state: Any, parameters: dict[str, Any]) -> None:
        self.state = state
        self.parameters = parameters
        # Whether standard output is for a machine: it then holds one JSON document and nothing else.
        self.as_json = bool(parameters.get("json_output"))
        self.run: FleetRun | None = None
        self.intent: Intent | None = None
        # What the file says without being run, where that is certain.
        self.expected: Intent | None = None
        self.declined = False
        # What rolls out, once the first host that changes is at it.
        self.conductor: gevent.Greenlet[..., None] | None = None
        self._planning: gevent.Greenlet[..., None] | None = None
        self._planned = False
        self._stated_by: set[Any] = set()
        self._chorus: Chorus | None = None

    def begin(self) -> None:
        """Guard the run that pyinfra is about to make."""
        secrets.provide()
        invocation.refuse_traps(self.parameters)
        self.expected = invocation.stated(invocation.file_of(self.parameters))
        set_stage, fail_hosts = self.state.set_stage, self.state.fail_hosts

        def guarded_set_stage(stage: StateStage) -> None:
            if stage == StateStage.Connect:
                self._before_connecting()
            set_stage(stage)
            if stage == StateStage.Prepare:
                self._before_preparing()
            if stage == StateStage.Disconnect and self._chorus:
                self._chorus.end()

        def guarded_fail_hosts(failed: Collection[Any], activated_count: int | None = None) -> None:
            if self.state.current_stage == StateStage.Connect:
                # Judged when the plan stands, in words, and also when it is all of them.
                self.state.failed_hosts.update(failed)
                self.state.active_hosts.difference_update(failed)
                return
            fail_hosts(failed, activated_count)

        self.state.set_stage, self.state.fail_hosts = guarded_set_stage, guarded_fail_hosts
        atexit.register(self._leave_with_code)

    def _before_connecting(self) -> None:
        hosts = [host for host in self.state.inventory if self.state.is_host_in_limit(host)]
        names = [str(host.name) for host in self.state.inventory]
        try:
            invocation.refuse_idle_patterns(self.parameters, names, self.state.inventory.groups)
            if not hosts:
                raise invocation.no_host(self.parameters)
            files_open.provide(len(hosts))
            if self.expected == "retire":
                invocation.refuse_unnamed(self.parameters, [str(host.name) for host in hosts])
            invocation.refuse_data({str(host.name): host.data.dict() for host in hosts})
        except FleetError as error:
            refuse(error)
        self._chorus = console.adopt(verbose=bool(self.parameters.get("verbosity")))
        # A failed host ends the run, and no question whether to go on without it is asked: the answer is --exclude.
        self.state.config.FAIL_PERCENT, self.state.should_raise_failed_hosts = 0, None
        self._planning = gevent.spawn(self._plan, hosts)

    def _plan(self, hosts: Collection[Any]) -> None:
        _load(_WANTED_TO_PLAN)
        from sparkfleet.inventory import inventory
        from sparkfleet.rollout import fleet_run

        try:
            self.run = fleet_run.plan_run([inventory.entry(host) for host in hosts], self.expected or "look")
            self.run.outside = len(list(self.state.inventory)) - len(hosts)
        except FleetError as error:
            refuse(error)

    def _before_preparing(self) -> None:
        if self._chorus:
            self._chorus.end()
            self._chorus.connecting = False
        if self._planning:
            self._planning.get()
        run = self.run
        assert run is not None, "a plan that cannot stand ends the process"
        if self._unreached() and self.expected not in (None, "look"):
            self._refuse_unreached()
        answers = facts.ask_all(self.state, lambda: _load(_WANTED_NEXT))
        from sparkfleet.preflight.seen import Seen

        run.nodes.update({name: answers.get(name) or Seen(error=UNREACHED) for name in run.hosts})
        if self.state.active_hosts:
            return
        # pyinfra runs no deploy file where no host is left.
        if self.expected == "look":
            runpy.run_path(str(invocation.file_of(self.parameters)))
        self._refuse_unreached()

    def _unreached(self) -> list[str]:
        connected = {str(host.name) for host in self.state.activated_hosts}
        return [name for name in self.run.hosts if name not in connected] if self.run else []

    def how_to_reach(self) -> str:
        """Return what to do about hosts that cannot be reached; empty where all are."""
        silent, hosts = self._unreached(), self.run.hosts if self.run else {}
        if len(silent) == len(hosts):
            return "check name, address, ssh_user and key of one with `ssh`; `sparkfleet enroll HOST` sets up a new one"
        if len(silent) > 4:
            return "make them reachable, or leave them out: --exclude takes a name, a pattern or a group"
        without = " ".join(f"--exclude {name}" for name in silent)
        return f"make them reachable, or go on without them: {without}" if silent else ""

    def _refuse_unreached(self) -> NoReturn:
        silent = self._unreached()
        what = f"{len(silent)} of {len(self.run.hosts if self.run else ())} hosts cannot be reached: {some(silent)}"
        end(exit_codes.UNREACHABLE, FleetError(f"{what}; nothing was changed", remedy=self.how_to_reach()))

    def intends(self, intent: Intent) -> None:
        """Take a task's word for what this run is for, from each host once.

        Ends the run where another task said something else: what would be planned for one must not carry out the other.
        """
        host = ctx_host.get() if ctx_host.isset() else None
        if self.intent is None:
            self.intent = self.fleet().intent = intent
        elif self.intent != intent or host in self._stated_by:
            again = "a second time" if self.intent == intent else f"to {intent}"
            refuse(
                RefusedError(
                    f"this run was started to {self.intent}, and its files then ask {again}",
                    "one purpose a run",
                    "keep the tasks in files of their own, and run one after the other",
                )
            )
        self._stated_by.add(host)

    def fleet(self) -> FleetRun:
        assert self.run is not None, "deploy files and operations run after the hosts were looked up"
        return self.run

    def plan(self) -> None:
        """Settle what the run's purpose needs, and print what is about to happen; once, whoever asks for it first."""
        from sparkfleet.rollout import fleet_run, fleetview, plan

        run, intent = self.fleet(), self.intent
        if self._planned or intent is None:
            return
        if intent != "look" and self._unreached():
            self._refuse_unreached()
        try:
            if intent == "retire":
                invocation.refuse_unnamed(self.parameters, list(run.hosts))
            if intent in FROM_INVENTORY:
                fleet_run.require_releases(run)
            if intent in ("deploy", "preflight"):
                run.findings = fleetview.examine(run, run.started.date())
            if intent in ROLLING:
                fleet_run.settle_waves(run)
                say("\n".join(["", *plan.lines(run), ""]), keep=True)
                fleet_run.refuse_to_undo(run, self._given())
        except FleetError as error:
            refuse(error)
        # Not before: what was planned in part must not be carried out.
        self._planned = True

    def _given(self) -> set[str]:
        """Return the settings that the command line gives."""
        return {str(pair).partition("=")[0] for pair in self.parameters.get("data") or ()}

    def _leave_with_code(self) -> None:
        """Say with the exit code how the run ended, after everything else was said: pyinfra itself knows 0 and 1."""
        if self._chorus:
            self._chorus.end()
        if self._planning:
            self._planning.join()
        if self.run is None:
            return
        names = [{host.name for host in hosts} for hosts in (self.state.activated_hosts, self.state.failed_hosts)]
        code = exit_codes.REFUSED if self.declined else exit_codes.code_of(self.run, *names)
        if code is not None or (self.as_json and not console.printed()):
            end(1 if code is None else code)

    def document(self, code: int, reason: FleetError | None) -> dict[str, Any]:
        """Return what --json prints where pyinfra printed nothing: how the run ended."""
        from sparkfleet.report import record

        found: dict[str, Any] = {"schema": 1, "exit_code": code, "meaning": exit_codes.MEANINGS.get(code)}
        if reason:
            found["reason"] = reason.text()
        if self.run and self.run.findings:
            from sparkfleet.rollout import fleetview

            found["preflight"] = fleetview.document(self.run)["hosts"]
        if self.run and self.run.progress.begun:
            found["rollout"] = record.document(self.run)
        return found


def _load(modules: Collection[str]) -> None:
    for module in modules:
        gevent.idle()
        import_module(f"sparkfleet.{module}")


def _found() -> Session | None:
    """Return the session of the run that is under way, which pyinfra's state carries."""
    return getattr(ctx_state.get(), _ATTRIBUTE, None) if ctx_state.isset() else None


def begin() -> None:
    """Begin the session of the run that pyinfra is about to make; called by config.py."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    context = click.get_current_context(silent=True)
    parameters = dict(context.params) if context else {}
    console.take_over(_when_nobody_reads)
    try:
        invocation.refuse_own_operation(parameters)
        if invocation.is_fleet_run(parameters):
            _answer_questions()
            state = ctx_state.get()
            session = Session(state, parameters)
            setattr(state, _ATTRIBUTE, session)
            session.begin()
    except FleetError as error:
        refuse(error)


def current() -> Session:
    """Return the session of the run that is under way; ends the run, or raises PyinfraError, where there is none."""
    session = _found()
    if session is not None:
        return session
    problem = FleetError(
        "config.py was not loaded, and with it group_data/: found "
        + (f"the working folder {Path.cwd()}" if Path.cwd() != ROOT else "another --config"),
        f"{ROOT}" if Path.cwd() != ROOT else "the repository's own config.py",
        f"cd {ROOT} and run the command again (or give pyinfra --chdir)"
        if Path.cwd() != ROOT
        else "leave --config out",
    )
    if click.get_current_context(silent=True):
        refuse(problem)
    raise PyinfraError(problem.text())


def run() -> FleetRun:
    """Return the plan of the run that is under way."""
    session = current()
    session.plan()
    return session.fleet()


def intends(intent: Intent) -> None:
    """State what this run is for; each task says so before anything else."""
    current().intends(intent)


def require(*intents: Intent) -> None:
    """End the run unless it was started for one of these: asked inside what acts, whichever file called it."""
    session = current()
    if session.intent in intents:
        session.plan()
        return
    refuse(
        RefusedError(
            f"a step that is for {' or '.join(intents)} was called in a run "
            + (f"that was started to {session.intent}" if session.intent else "whose files do not say what it is for"),
            f'session.intends("{intents[0]}") before it, and a run for that alone',
            "run the file in tasks/ that does it, or deploy.py",
        )
    )


def require_named(host: str) -> None:
    """End the run unless this host was named, letter by letter, with --limit."""
    try:
        invocation.refuse_unnamed(current().parameters, [host])
    except FleetError as error:
        refuse(error)


def as_json() -> bool:
    """Say whether standard output is for a machine."""
    session = _found()
    return session is not None and session.as_json


def say(text: str, *, keep: bool = False) -> None:
    """Print for a person: with --json, standard output is for the machine; `keep` prints it in quiet mode as well."""
    if keep or not console.quiet():
        click.echo(wrapped(text, width()), err=as_json())


def refuse(error: FleetError) -> NoReturn:
    """End the run with exit code 2 and plain text; a traceback would bury the reason."""
    end(exit_codes.REFUSED, error)


def end(code: int, reason: FleetError | None = None) -> NoReturn:
    """End the process now, whichever greenlet this is; with --json, standard output gets its one document."""
    from sparkfleet.deploy import hooks

    if reason:
        title = "refused:" if code == exit_codes.REFUSED else "stopped:"
        click.echo(f"{click.style(title, fg='red', bold=True)} {reason.text()}", err=True)
    session = _found()
    if session and session.as_json and not console.printed():
        click.echo(json.dumps(session.document(code, reason), ensure_ascii=False, indent=1))
    hooks.end_all()
    console.flush()
    os._exit(code)


def leave_interrupted() -> NoReturn:
    """End the process at once; pyinfra's own end would report success, or a failed host."""
    session = _found()
    if session and session.run and session.run.progress.begun:
        from sparkfleet.report import record

        record.write(session.run)
    end(exit_codes.INTERRUPTED)


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    """Once: no further wave starts, the hosts of this one finish. Twice, or before the first wave: leave at once.

    The same for Ctrl-C, a service that is stopped and a terminal that is closed. pyinfra would end with 0; whoever
    scripted this run must see that it did not finish. Connections need no farewell: what runs on a node goes on.
    """
    session = _found()
    found = session.run if session else None
    if found is None or found.intent == "look":
        leave_interrupted()
    progress = found.progress
    if progress.begun and not progress.interrupted:
        progress.interrupted = True
        progress.stop(f"interrupted by {found.operator}")
        click.echo(
            "\ninterrupted: no further wave starts; waiting for the hosts that are being activated. "
            "Press Ctrl-C again to exit now: they finish or roll back on their own.",
            err=True,
        )
        return
    click.echo(
        "\ninterrupted: no further wave starts. A host that is being activated finishes or rolls back on its own; "
        "run the same command again to converge.",
        err=True,
    )
    leave_interrupted()


def _when_nobody_reads() -> None:
    """A rollout goes on when its reader left; who only looks has seen enough."""
    session = _found()
    if session and session.intent == "look":
        os._exit(0)


def _answer_questions() -> None:
    """Hear the answer to pyinfra's one question: nobody there, or anything but Enter, is a no, and no success."""
    ask: Callable[..., str] = builtins.input

    def heard(*prompt: Any) -> str:
        try:
            answer = ask(*prompt)
        except EOFError:
            refuse(FleetError("nobody is there to confirm: standard input has ended", "Enter, or -y", "add -y"))
        session = _found()
        if answer and session:
            session.declined = True
        return answer

    builtins.input = heard
