"""Connections to a real SSH server, through pyinfra's own connector: what two users of one may do to each other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkfleet import ROOT
from tests.unit.sparkfleet.node.sshd import Sshd

# In a process of its own, because pyinfra's command line patches the whole process for gevent.
CLIENT = """
from gevent import monkey; monkey.patch_all()
import json, sys, time
import gevent
from pyinfra.api import Config, Inventory, State, StringCommand
from sparkfleet.node import remote
from sparkfleet.node.transport import attentive

port = int(sys.argv[1])
data = {"ssh_hostname": "127.0.0.1", "ssh_port": port, "ssh_user": "nvidia", "ssh_password": "secret",
        "ssh_allow_agent": False, "ssh_look_for_keys": False, "ssh_strict_host_key_checking": "off",
        "ssh_paramiko_connect_kwargs": {"transport_factory": attentive}}
state = State(Inventory(([("spark-1", data)], {})), Config())
host = state.inventory.get_host("spark-1")
host.connect(raise_exceptions=True)
line, first = remote.line(host), remote.line(host).transport()
found = {"peer": remote.peer_address(host), "local": remote.local_address(host)}


def run(script, timeout_s=None):
    began = time.monotonic()
    try:
        answer = remote.execute(host, StringCommand(script), timeout_s=timeout_s, sudo=False)
        said = [answer.ok, answer.stdout]
    except remote.ConnectionLost as lost:
        said = ["lost", str(lost)]
    return [*said, time.monotonic() - began]
"""


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    found = Sshd(tmp_path / "home")
    yield found
    found.close()


def client(sshd: Sshd, script: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", f"{CLIENT}\n{script}\nprint(json.dumps(found))", str(sshd.port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Oops" not in done.stderr + done.stdout, "paramiko was asked for a session in the middle of a login"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_command_runs_and_addresses_are_known(sshd: Sshd) -> None:
    found = client(sshd, 'found["answer"] = run("echo done")')
    assert found["answer"][:2] == [True, "done"]
    assert (found["peer"], found["local"]) == ("127.0.0.1", "127.0.0.1")


def test_a_call_in_the_middle_of_another_s_login_waits_for_it(sshd: Sshd) -> None:
    sshd.login_s = 0.5
    found = client(
        sshd,
        """
line._close()
connecting = gevent.spawn(line.replace, first, 30)
gevent.sleep(0.2)
found["answer"] = run("echo done", 30)
found["connected"] = connecting.get()
""",
    )
    assert found["connected"] is True
    assert found["answer"][:2] == [True, "done"]
    assert len(sshd.logins) == 2


def test_a_renewal_leaves_the_connection_alone_that_an_activation_made(sshd: Sshd) -> None:
    sshd.login_s = 0.3
    found = client(
        sshd,
        """
renewal = gevent.spawn(run, "sleep 30", 1)
gevent.sleep(0.1)
line.replace(first, 30)
second = line.transport()
working = gevent.spawn(run, "sleep 2; echo worked")
lost = remote.ConnectionLost("late", first)
found["renewed"] = remote.reconnect(host, lost, 5)
found["worked"] = working.get()
found["same"] = line.transport() is second
found["renewal"] = renewal.get()
""",
    )
    assert found["renewed"] is True
    assert found["worked"][:2] == [True, "worked"]
    assert found["same"] is True
    assert found["renewal"][0] == "lost"


def test_what_ends_with_its_connection_is_lost_and_no_answer(sshd: Sshd) -> None:
    found = client(
        sshd,
        """
working = gevent.spawn(run, "sleep 30; echo worked")
gevent.sleep(0.3)
line.replace(first, 30)
found["worked"] = working.get(timeout=20)
""",
    )
    assert found["worked"][0] == "lost"


def test_a_host_that_falls_silent_is_lost_within_the_bound(sshd: Sshd) -> None:
    found = client(
        sshd,
        """
remote.PULSE_S, remote.PULSE_ANSWER_S = 0.3, 0.5
host.run_shell_command, real = (lambda command, **rest: (
    gevent.sleep(60) if str(command) == "true" else real(command, **rest))), host.run_shell_command
found["worked"] = run("sleep 50")
""",
    )
    assert found["worked"][0] == "lost"
    assert found["worked"][2] < 20
