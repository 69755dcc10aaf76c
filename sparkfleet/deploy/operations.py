"""What a deploy does to a host, one operation a step; the decisions are made in the pure modules."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import wraps
from io import StringIO
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.api.state import StateStage
from pyinfra.operations import files

from sparkfleet.deploy import actions, conduct, session, sync
from sparkfleet.node.nodeprogram import (
    ACTIVATE_UNIT,
    UNITS,
    UNITS_PATH,
    VERIFY_TIMER,
    WATCH_TIMER,
    program_sha256,
    unit,
)
from sparkfleet.preflight import repairs
from sparkfleet.preflight.checks.view import View
from sparkfleet.preflight.repairs import REPAIRS
from sparkfleet.preflight.seen import Seen
from sparkfleet.rollout import fleet_run
from sparkfleet.rollout.fleet_run import FleetRun, HostPlan
from sparkfleet.rollout.intents import ROLLING, Intent

Commands = Generator[StringCommand | FunctionCommand, None, None]

# After which silence a command on a host counts as failed: systemd's own jobs end within 90 s, a package takes minutes.
SYSTEMCTL_S, REPAIR_S = 120, 1200


def step(*intents: Intent, **options: Any) -> Callable[[Callable[..., Commands]], Callable[..., Any]]:
    """Make an operation for runs with one of these purposes.

    Whatever file calls it: the purpose is asked for when a host registers it, before any change, and when it acts.
    """

    def made(body: Callable[..., Commands]) -> Callable[..., Any]:
        @wraps(body)
        def acting(*arguments: Any, **named: Any) -> Commands:
            session.require(*intents)
            yield from body(*arguments, **named)

        registered = operation(**options)(acting)

        @wraps(body)
        def called(*arguments: Any, **named: Any) -> Any:
            session.require(*intents)
            return registered(*arguments, **named)

        return called

    return made


def _plan() -> HostPlan:
    return session.run().hosts[host.name]


def _node() -> Seen:
    return session.run().nodes[host.name]


# What a host lacks, as it was before the run's first change.
LACKS: Mapping[str, Callable[[FleetRun, str], object]] = {
    "program": lambda run, name: fleet_run.installed(run.nodes[name]) != program_sha256(),
    "timer": lambda run, name: run.status(name).verify_timer != run.hosts[name].settings.verify_weekly,
    "readiness": lambda run, name: run.status(name).readiness != run.hosts[name].settings.readiness,
    "weights": lambda run, name: sync.missing(run, name) or sync.image_to_spread(run, name),
    "release": lambda run, name: not fleet_run.staged(run, name, program_sha256()),
}


def lacking(what: str) -> bool:
    """Say whether any host of the run lacks it: an operation that no host needs is not worth registering."""
    run = session.run()
    if what not in run.lacking:
        run.lacking[what] = any(LACKS[what](run, name) for name in run.nodes)
    return run.lacking[what]


def _has(what: str) -> bool:
    """Say whether this host has it already, and note that it has."""
    if LACKS[what](session.run(), host.name):
        return False
    host.noop(f"the {what} is as wanted")
    return True


def _is_bare() -> bool:
    """Say whether nothing of this tool is on this host, and note it."""
    node = _node()
    # What can't be told is not nothing: the step itself will say what it meets.
    if not node.facts or fleet_run.installed(node) or session.run().status(host.name).releases:
        return False
    host.noop("nothing of sparkfleet is here")
    return True


@step("deploy", "repair")
def repair(what: str) -> Commands:
    """Carry out what is missing of one repair, on the hosts that ask for it.

    + what: the repair, by its name in the setting `repairs`
    """
    plan, facts, commands = _plan(), _node().facts, []
    if facts and what in plan.settings.repairs:
        view = View(facts, plan.release, plan.settings.catalog())
        commands = REPAIRS[what](view, str(host.data.get("ssh_user") or ""))
    if not commands:
        host.noop(f"{what}: nothing to repair")
        return
    for path, text in repairs.files(what).items():
        yield from files.put._inner(src=StringIO(text), dest=path, mode="644")
    for command in commands:
        yield StringCommand(*(QuoteString(word) for word in command), _timeout=REPAIR_S)


@step("deploy", "stage", "rollback", "restart")
def install_node_program() -> Commands:
    """Install /usr/local/bin/sparknode and its units where they are missing or another version.

    The program comes last: its hash is what the next run asks for.
    """
    if _has("program"):
        return
    for name in UNITS:
        yield FunctionCommand(actions.upload, (unit(name), f"{UNITS_PATH}/{name}", "0644"), {})
    # What earlier versions called at a boot.
    former = [f"{UNITS_PATH}/{folder}sparkfleet-recover.service" for folder in ("", "multi-user.target.wants/")]
    yield StringCommand("rm", "--force", *former, _timeout=SYSTEMCTL_S)
    # A failed look whose file somebody removed is kept as «not found», and its timer would refuse to start. The pattern
    # is no error where nothing matches.
    yield StringCommand("systemctl", "reset-failed", QuoteString("sparkfleet-watch.*"), _timeout=SYSTEMCTL_S)
    # --no-reload: a reload could take the GPU from running containers (nvidia-container-toolkit#48), and systemd reads
    # a unit that it does not know yet when it is started.
    yield StringCommand(
        "systemctl", "enable", "--no-reload", "--quiet", ACTIVATE_UNIT, WATCH_TIMER, _timeout=SYSTEMCTL_S
    )
    yield StringCommand("systemctl", "start", "--quiet", WATCH_TIMER, _timeout=SYSTEMCTL_S)
    yield FunctionCommand(actions.install_program, (), {})


@step("deploy", "stage")
def keep_verifying() -> Commands:
    """Have the host hash its weights once a week, or not, as the settings say."""
    if _has("timer"):
        return
    wanted = _plan().settings.verify_weekly
    verb = "enable" if wanted else "disable"
    yield StringCommand("systemctl", verb, "--no-reload", "--quiet", VERIFY_TIMER, _timeout=SYSTEMCTL_S)
    yield StringCommand("systemctl", "start" if wanted else "stop", "--quiet", VERIFY_TIMER, _timeout=SYSTEMCTL_S)


@step("deploy", "stage")
def answer_readiness() -> Commands:
    """Have the host say over HTTP whether requests may come, or not, as the settings say."""
    if _has("readiness"):
        return
    yield FunctionCommand(actions.set_readiness, (_plan().settings.readiness,), {})


@step("verify", is_idempotent=False, idempotent_notice="It reads every byte each time.")
def verify_models() -> Commands:
    """Hash every model on the host against its lock, without a network; damage is named by file."""
    if not _is_bare():
        yield FunctionCommand(actions.verify, (), {})


@step("prune", is_idempotent=False, idempotent_notice="What may go is known on the host alone.")
def prune_host() -> Commands:
    """Remove what no release needs; said before anything goes."""
    if _is_bare():
        return
    if not _executing():
        actions.prune(host.state, host, _plan(), dry=True)
    yield FunctionCommand(actions.prune, (_plan(), False), {})


@step("deploy", "stage")
def sync_models() -> Commands:
    """Bring target and drafter to the host together, where they are missing."""
    if _has("weights"):
        return
    yield FunctionCommand(sync.bring, (), {})


@step("deploy", "stage")
def stage_release() -> Commands:
    """Verify the models, pull the image by digest and write the release; nothing that serves is touched."""
    plan = _plan()
    if _has("release"):
        return
    yield FunctionCommand(actions.stage, (plan,), {})


@step("retire")
def retire() -> Commands:
    """Drain and stop the engine and remove everything of the tool's; the weights only where the settings say so."""
    session.require_named(host.name)
    run = session.run()
    if _is_bare():
        return
    if LACKS["program"](run, host.name):
        yield FunctionCommand(actions.install_program, (), {})
    words = ["retire", "--rollout", run.rollout, "--operator", run.operator]
    yield FunctionCommand(actions.retire, (words + ["--models"] * _plan().settings.retire_models,), {})


@step(*ROLLING)
def roll_out() -> Commands:
    """Activate releases wave by wave, on all hosts that change.

    One operation for all waves: pyinfra has a barrier after each, and a thousand of them would cost every host each.
    """
    if not any(host.name in wave for wave in session.run().waves):
        host.noop("not in a wave")
        return
    yield FunctionCommand(conduct.take_part, (), {})


def _executing() -> bool:
    """Say whether changes are made, and not only looked for: what serves order alone is no change to show."""
    return bool(host.state.current_stage == StateStage.Execute)
