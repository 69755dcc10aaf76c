"""What a deploy does to a host, one operation a step; the decisions are made in the pure modules."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, QuoteString, State, StringCommand, operation

from sparkfleet import artefacts, fleet, guard, preflight, remote
from sparkfleet.errors import FleetError
from sparkfleet.facts import node
from sparkfleet.fleet import HostPlan
from sparkfleet.nodeprogram import INSTALL_PATH, program, program_sha256

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
    reasons = "\n".join(f"unfit: {finding.text()}" for finding in failed)
    yield StringCommand("echo", QuoteString(reasons), ">&2;", "exit", "1")


@operation()
def install_node_program() -> Commands:
    """Install /usr/local/bin/sparknode, atomically, where it is missing or another version."""
    if (node().get("sparknode") or {}).get("installed_sha256") == program_sha256():
        host.noop("sparknode is installed")
        return
    temporary = f"{INSTALL_PATH}.new"
    yield FunctionCommand(_upload_program, (temporary,), {})
    yield StringCommand("chmod", "0755", temporary, "&&", "mv", "--force", temporary, INSTALL_PATH)


def _upload_program(_state: State, target: Host, temporary: str) -> bool:
    import base64

    text = base64.encodebytes(program()).decode().splitlines()
    ok, _ = target.run_shell_command(f"base64 -d > {temporary}", _sudo=True, _stdin=text)
    return bool(ok)


@operation()
def sync_models() -> Commands:
    """Bring target and drafter to the host together, where they are missing."""
    plan = _plan()
    present = {(row["repo"], row["commit"]) for row in (node().get("fleet") or {}).get("models") or []}
    missing = [row for row in plan.release["artefacts"] if (row["repo"], row["commit"]) not in present]
    if not missing:
        host.noop("target and drafter are here")
        return
    yield FunctionCommand(_send_models, (plan, [row["repo"] for row in missing]), {})


def _send_models(_state: State, target: Host, plan: HostPlan, repos: list[str]) -> bool:
    for repo in repos:
        locked = plan.lock.repos[repo]
        try:
            folder = artefacts.ensure_fetched(plan.settings, repo, locked)
            target.log(f"{repo}: sending {locked.total_bytes / 1e6:.1f} MB")
            artefacts.send(plan, target.data.dict(), repo, folder)
        except FleetError as error:
            target.log(error.text())
            return False
    return True


@operation()
def stage_release() -> Commands:
    """Verify the models, pull the image by digest and write the release; nothing that serves is touched."""
    plan = _plan()
    if fleet.staged(plan, node(), program_sha256()):
        host.noop(f"release {plan.compiled.id} is staged")
        return
    yield FunctionCommand(_stage, (plan,), {})


def _stage(_state: State, target: Host, plan: HostPlan) -> bool:
    ok, _ = remote.sparknode(target, ["stage"], stdin=json.dumps(stage_request(plan)))
    return ok


def stage_request(plan: HostPlan) -> dict[str, Any]:
    """Return what `sparknode stage` reads: the release, where its image comes from, and the hashes of its files."""
    image = plan.release["image"]
    return {
        "schema": 1,
        "release": plan.release,
        "image_source": image_source(plan.settings.registry_mirrors, image["repository"], image["digest"]),
        "manifests": [
            {
                "repo": row["repo"],
                "commit": row["commit"],
                "files": plan.lock.repos[row["repo"]].manifest(),
            }
            for row in plan.release["artefacts"]
        ],
    }


def image_source(mirrors: dict[str, str], repository: str, digest: str) -> str:
    """Return what to pull: the digest from the registry, or from the mirror that stands for it."""
    registry, _, path = repository.partition("/")
    mirror = mirrors.get(registry)
    if mirror is None:
        return f"{repository}@{digest}"
    return f"{mirror.removeprefix('http://').removeprefix('https://')}/{path}@{digest}"


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
    yield FunctionCommand(_activate, (plan,), {})


def _activate(_state: State, target: Host, plan: HostPlan) -> bool:
    run = guard.run()
    arguments = ["activate", plan.compiled.id, "--rollout", run.rollout, "--operator", run.operator]
    ok, result = remote.sparknode(target, arguments)
    if result.get("fleet"):
        run.nodes[target.name]["fleet"] = result["fleet"]
    run.outcomes[target.name] = {"ok": ok, **result}
    return ok
