"""What a deploy does to a host, one operation a step; the decisions are made in the pure modules."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from sparkfleet import actions, fleet, guard, preflight
from sparkfleet.facts import node
from sparkfleet.fleet import HostPlan
from sparkfleet.nodeprogram import (
    INSTALL_PATH,
    RECOVER_UNIT,
    RECOVER_UNIT_PATH,
    program,
    program_sha256,
    recover_unit,
)

Commands = Generator[StringCommand | FunctionCommand, None, None]


def _plan() -> HostPlan:
    return guard.run().hosts[host.name]


@operation()
def refuse_unfit() -> Commands:
    """Stop before any change when a host is unfit for its release; every reason is shown."""
    plan = _plan()
    findings = preflight.check(node(), plan.release, plan.settings.catalog())
    failed = [
        finding
        for finding in findings
        if finding.severity == "fail" and finding.id not in plan.settings.force_preflight
    ]
    for finding in findings:
        if finding.severity == "warn":
            host.log(f"warning: {finding.text()}")
    if not failed:
        host.noop("fit")
        return
    yield FunctionCommand(actions.refuse, ([f"unfit: {finding.text()}" for finding in failed],), {})


@operation()
def install_node_program() -> Commands:
    """Install /usr/local/bin/sparknode and its boot-time unit where they are missing or another version.

    The program comes last: its hash is what the next run asks for.
    """
    if (node().get("sparknode") or {}).get("installed_sha256") == program_sha256():
        host.noop("sparknode is installed")
        return
    yield FunctionCommand(actions.upload, (recover_unit(), RECOVER_UNIT_PATH, "0644"), {})
    # --no-reload: the unit is for the next boot, and a reload could take the GPU from running containers
    # (nvidia-container-toolkit#48).
    yield StringCommand("systemctl", "enable", "--no-reload", "--quiet", RECOVER_UNIT)
    yield FunctionCommand(actions.upload, (program(), INSTALL_PATH, "0755"), {})


@operation()
def sync_models() -> Commands:
    """Bring target and drafter to the host together, where they are missing."""
    plan = _plan()
    present = {(row["repo"], row["commit"]) for row in (node().get("fleet") or {}).get("models") or []}
    missing = [row for row in plan.release["artefacts"] if (row["repo"], row["commit"]) not in present]
    if not missing:
        host.noop("target and drafter are here")
        return
    yield FunctionCommand(actions.send_models, (plan, [row["repo"] for row in missing]), {})


@operation()
def stage_release() -> Commands:
    """Verify the models, pull the image by digest and write the release; nothing that serves is touched."""
    plan = _plan()
    if fleet.staged(plan, node(), program_sha256()):
        host.noop(f"release {plan.compiled.id} is staged")
        return
    yield FunctionCommand(actions.stage, (plan,), {})


@operation()
def activate_release(wave: list[str]) -> Commands:
    """Activate the host's release when the host is in this wave.

    Every host registers every wave, because pyinfra orders operations by what all hosts have in common: a wave that
    only its own hosts knew would run beside the next one.

    + wave: the hosts of this wave
    """
    if host.name not in wave:
        return
    plan = _plan()
    if fleet.converged(plan, node()):
        host.noop(f"already serves {plan.compiled.id}, verified")
        return
    yield FunctionCommand(actions.activate, (plan,), {})
