"""The one fact: everything any check or plan asks of a node, in one round trip, at the first contact two."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import gevent
from paramiko import SSHException
from pyinfra.api import Host, State, StringCommand

from sparkfleet.node.nodeprogram import INSTALL_PATH, UNPACK, carried, draining, program, program_sha256

if TYPE_CHECKING:
    from sparkfleet.preflight.seen import Seen

# The probe's own deadline, a slow connection, and the program's way to a host that does not have it.
ANSWER_S = 60.0
NO_SUDO = "sudo: a password is required"
OTHER_PROGRAM = "sparknode is missing or of another version"
# Runs the program that arrives on standard input.
CARRIED = f't=$(mktemp) && {UNPACK} >"$t" && python3 "$t" {{}}; s=$?; rm -f "$t"; exit $s'


def _as_root(script: str) -> str:
    """sudo is called here and once: pyinfra would ask a person for the password that it wants, and each call of it
    opens a session on the host. Only where the script failed is it asked whether that was the reason.
    """
    quoted, why = shlex.quote(script), shlex.quote(NO_SUDO)
    refused = f"{{ s=$?; sudo -n sh -c true 2>/dev/null && exit $s; echo {why}; }}"
    return f'if [ "$(id -u)" = 0 ]; then sh -c {quoted}; else sudo -n -H sh -c {quoted} || {refused}; fi'


def _installed(command: str) -> str:
    return (
        f"if printf '%s  %s\\n' {program_sha256()} {INSTALL_PATH} | sha256sum --check --status 2>/dev/null; then "
        f"{INSTALL_PATH} {command}; else echo {shlex.quote(OTHER_PROGRAM)}; fi"
    )


def ask_all(state: State, meanwhile: Callable[[], None]) -> dict[str, Seen]:
    """Return every connected host's probe, all asked at the same time: the waves depend on how each of them stands.

    `meanwhile` is called while they think.
    """
    active = state.inventory.get_active_hosts()
    # Active hosts are a set; what is printed later shall have the inventory's order.
    waiting = {host.name: state.pool.spawn(_ask, host) for host in state.inventory if host in active}
    meanwhile()
    return {name: greenlet.get() for name, greenlet in waiting.items()}


def _ask(host: Host) -> Seen:
    from sparkfleet.preflight import seen

    try:
        line, why = answer(host, "probe")
        return seen.read(line, time.time()) if line else seen.Seen(error=why)
    # Whatever went wrong concerns this host, and must not end the run of the others.
    except Exception as error:
        return seen.Seen(error=f"{type(error).__name__}: {error}")


def answer(host: Host, command: str) -> tuple[str, str]:
    """Return the last line that the node's program prints to a command that changes nothing, and why there is none.

    Where the program is missing or another version, it travels there on standard input, so that the first contact
    needs nothing but python3, and later ones send a line.
    """
    try:
        with gevent.Timeout(ANSWER_S, exception=TimeoutError):
            ok, output = host.run_shell_command(StringCommand(_as_root(_installed(command))))
            if ok and OTHER_PROGRAM in output.stdout_lines:
                script = draining(_as_root(CARRIED.format(command)))
                ok, output = host.run_shell_command(StringCommand(script), _stdin=program_text())
    except TimeoutError:
        return "", f"no answer within {ANSWER_S:.0f} s"
    except (OSError, EOFError, SSHException) as error:
        return "", str(error) or type(error).__name__
    if ok and output.stdout_lines:
        return _answer_in(output.stdout_lines), ""
    said = [line.strip() for line in output.stderr_lines if line.strip()]
    return "", said[-1] if said else f"the {command} printed nothing"


def _answer_in(lines: list[str]) -> str:
    """Return the last document, or the last line: a login may print before it, and a logout after it."""
    return next((line for line in reversed(lines) if line.startswith("{")), lines[-1])


@cache
def program_text() -> list[str]:
    return carried(program())
