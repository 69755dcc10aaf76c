"""The steps that need more than a shell line, run by pyinfra on an open connection.

pyinfra passes state and host to a function whose parameters have these two names, and takes its result as success.
"""

from __future__ import annotations

import json
import os
from typing import Any

from pyinfra import logger
from pyinfra.api import Host, State, StringCommand

from sparkfleet.artefacts import download
from sparkfleet.deploy import session
from sparkfleet.node import activation, remote
from sparkfleet.node.nodeprogram import INSTALL_PATH, UNPACK, carried, program, trial
from sparkfleet.node.remote import ConnectionLost
from sparkfleet.release import images
from sparkfleet.rollout import exit_codes
from sparkfleet.rollout.fleet_run import HostPlan
from sparknode.base.shape import written
from sparknode.state.status import Readiness


def refuse_unfit() -> None:
    """End the run where a host is unfit: the findings were printed, and nothing was changed."""
    code = exit_codes.of_findings(session.run().findings)
    if code is not None:
        session.end(code)


def upload(state: State, host: Host, content: bytes, path: str, mode: str) -> bool:  # noqa: ARG001
    """Write a file as root, whole or not at all; its text is not part of any command line."""
    return _put(host, content, path, mode)


def install_program(state: State, host: Host) -> bool:  # noqa: ARG001
    """Put the node's program in place once it has run there: a host whose Python cannot keeps the one it has."""
    return _put(host, program(), INSTALL_PATH, "0755", trial(f"{INSTALL_PATH}.new"))


def _put(host: Host, content: bytes, path: str, mode: str, tried: str = "true") -> bool:
    new = f"{path}.new"
    command = f"{UNPACK} >{new} && chmod {mode} {new} && {tried} && sync {new} && mv -f {new} {path}"
    # Whole or not at all, so a second try does no harm: a host that booted seconds ago once failed the first.
    for _ in range(2):
        try:
            answer = remote.execute(host, StringCommand(command), stdin=carried(content))
        except ConnectionLost as lost:
            host.log_styled(f"{path} could not be written: {lost}", fg="red", log_func=logger.error)
            return False
        if answer.ok:
            return True
        why = answer.last_line or "it gave no reason"
        host.log_styled(f"{path} could not be written: {why}", fg="red", log_func=logger.error)
    return False


def retire(state: State, host: Host, arguments: list[str]) -> bool:  # noqa: ARG001
    """Give the host back, and note what became of it where that did not work."""
    run = session.run()
    served = run.status(host.name).serves
    done = _carried_out(host, arguments)
    stands = done or not served or (activation.look(host, run) and run.status(host.name).serves)
    run.progress.retired[host.name] = "done" if done else "serves" if stands else "down"
    return done


def stage(state: State, host: Host, plan: HostPlan) -> bool:  # noqa: ARG001
    return _carried_out(host, ["stage"], json.dumps(stage_request(plan)), "nothing that serves was touched: ")


def verify(state: State, host: Host) -> bool:  # noqa: ARG001
    return _carried_out(host, ["verify"])


def set_readiness(state: State, host: Host, wanted: Readiness | None) -> bool:  # noqa: ARG001
    if wanted is None:
        return _carried_out(host, ["readiness", "off"])
    words = ["readiness", "on", "--port", str(wanted.port), "--notice", str(wanted.notice_s)]
    return _carried_out(host, [*words, *(["--network", wanted.network] if wanted.network else [])])


def prune(state: State, host: Host, plan: HostPlan, dry: bool) -> bool:  # noqa: ARG001
    settings = plan.settings
    request = {"keep": settings.keep_releases, "pinned": settings.pinned_releases, "dry": dry}
    return _carried_out(host, ["prune"], json.dumps({**request, "floor_bytes": download.reserve(plan)}))


def _carried_out(host: Host, arguments: list[str], stdin: str | None = None, comfort: str = "") -> bool:
    """Have the node's program do what may as well be done twice."""
    try:
        return remote.call(host, arguments, stdin=stdin, show=True).ok
    except ConnectionLost as lost:
        host.log_styled(f"{lost}; {comfort}run the same command again", fg="red", log_func=logger.error)
        return False


def stage_request(plan: HostPlan) -> dict[str, Any]:
    """Return what `sparknode stage` reads: the release, where its image comes from, and the hashes of its files."""
    image, mirrors = plan.release.image, plan.settings.registry_mirrors
    platform = plan.lock.images[plan.release.image_tag].platforms[image.architecture]
    return {
        "schema": 1,
        "release": written(plan.release),
        "image_source": images.source(mirrors, image.repository, image.pinned),
        "image_bytes": platform.room(),
        "image_entrypoint": platform.entrypoint,
        "image_auth": images.credentials(mirrors, image.repository, os.environ),
        "manifests": written(tuple(download.manifests(plan))),
    }
