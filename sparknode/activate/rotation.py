"""Taking the host out of the rotation of whatever sends it requests, and giving it back.

A file says that the host is out, from before it's taken out until it was given back, so that a power cut can't leave it
out unnoticed.
"""

from __future__ import annotations

import json
from dataclasses import replace

from sparknode.base.files import atomic_write, read_text
from sparknode.base.http import Request
from sparknode.base.shape import parse, written
from sparknode.base.system import Host
from sparknode.engine.client import problem_of
from sparknode.errors import Refused, StepFailed
from sparknode.state import journal
from sparknode.state.release import Hook, Rotation
from sparknode.state.releases import load_linked, rotation_of


def _call(host: Host, hook: Hook, timeout: float) -> str | None:
    call = hook.http
    if call is None:
        done = host.system.run(list(hook.command or ()), timeout)
        return None if done.ok else done.why
    headers: dict[str, str] = {}
    if call.header_file:
        # Secrets stand in a file that root alone reads, and in no release, line or address.
        text = read_text(host.paths.on_host(call.header_file))
        if text is None:
            return f"{hook}: {call.header_file} can't be read; put its headers there, a line each"
        pairs = (line.partition(":") for line in text.splitlines() if line.strip())
        headers = {name.strip(): value.strip() for name, _, value in pairs}
    answer = host.system.http(replace(Request.to(call.url, call.method, timeout), headers=headers))
    if answer.status is not None and 200 <= answer.status < 300:
        return None
    return f"{hook}: {problem_of(answer)}"


def take_out(host: Host, rotation: Rotation) -> str:
    """Call the hook that takes this host out; StepFailed when it does not hold."""
    since = journal.timestamp(host.system.now())
    atomic_write(host.paths.out_of_rotation, json.dumps({"since": since, "rotation": written(rotation)}).encode())
    problem = _call(host, rotation.out, rotation.timeout_s)
    if problem:
        raise StepFailed(f"draining: this host could not be taken out of rotation: {problem}")
    return f"out of rotation ({rotation.out})"


def is_out(host: Host) -> bool:
    return host.paths.out_of_rotation.exists()


def give_back(host: Host) -> str | None:
    """Put the host back when it's out; what to say about it. A hook that fails changes nothing else."""
    if not is_out(host):
        return None
    try:
        marker = parse(read_text(host.paths.out_of_rotation) or "", str(host.paths.out_of_rotation))
        rotation = rotation_of(marker.node("rotation"))
    except Refused as refused:
        return f"STILL OUT OF ROTATION: {refused}"
    problem = _call(host, rotation.into, rotation.timeout_s)
    if problem:
        current = load_linked(host.paths, "current")
        again = (
            "the watch calls it again each minute" if current and current.watched else "then deploy again: it calls it"
        )
        return f"STILL OUT OF ROTATION: {problem}; fix the hook, {again}"
    host.paths.out_of_rotation.unlink(missing_ok=True)
    return f"in rotation again ({rotation.into})"
