"""Reading and driving from outside: hosts by plain ssh, systemctl, docker and curl; the tool by its command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.lab.config import LAB_DIR
from tests.lab.config import ROOT as ROOT

PYINFRA = str(Path(sys.executable).parent / "pyinfra")
STATE = "/var/lib/sparkfleet"
CURRENT_TAG = "2026-06-11-pr41703"
PREFIX_TAG = "2026-06-04-pr44389"
OTHER_TAG = "2026-06-18-v0.23.0-dflashfix"
THIRD_TAG = "2026-07-27-v0.26.0"
# inventory/lab.py's; a rollout whose controller was killed keeps its hosts for so long.
LEASE_S = 15
# The canary, then everybody else at once: for a state to begin with, where the waves are not what is looked at.
AT_ONCE = ("--data", "batch_size=4", "--data", "max_unavailable=100%")

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], deadline_s: float = 60) -> T:
    """Poll until `look` returns something true; the text names what did not come."""
    end = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {deadline_s:.0f} s")
        time.sleep(0.1)


def whole_records(lines: Iterable[str | bytes]) -> list[dict[str, Any]]:
    """The lines of a journal that are whole; a power cut or a full disk tears one."""
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


@dataclass(frozen=True)
class Node:
    """A host, read with plain tools."""

    name: str
    address: str

    def ssh(self, command: str, *, check: bool = True, timeout_s: float = 60) -> str:
        state = json.loads((LAB_DIR / "state.json").read_text())
        argv = ["ssh", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={state['known_hosts']}", "-i", state["key"]]
        argv += ["-o", "ConnectTimeout=5", f"{state['user']}@{self.address}", command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {command!r} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def sudo(self, command: str, *, check: bool = True) -> str:
        return self.ssh(f"sudo sh -c {shlex.quote(command)}", check=check)

    def reachable(self) -> bool:
        try:
            return self.ssh("true", check=False) == "" and self.ssh("echo here", check=False).strip() == "here"
        except subprocess.TimeoutExpired:
            return False

    def container(self) -> dict[str, Any] | None:
        rows = json.loads(self.sudo("docker inspect sparkfleet-serve 2>/dev/null || true", check=False) or "[]")
        return dict(rows[0]) if rows else None

    def image(self) -> str:
        """The tag's line of the simulated engine that answers, read from the image's own labels."""
        found = self.container()
        return str(found["Config"]["Image"]) if found else ""

    def unit(self, *properties: str, unit: str = "sparkfleet-serve.service") -> dict[str, str]:
        names = ",".join(properties)
        lines = self.sudo(f"systemctl show {unit} --property={names}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def link(self, name: str) -> str | None:
        target = self.sudo(f"readlink {STATE}/{name} || true").strip()
        return target.rsplit("/", 1)[-1] or None

    def release(self, name: str = "current") -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.sudo(f"cat {STATE}/{name}/release.json"))
        return document

    def journal(self) -> list[dict[str, Any]]:
        """The records of activations; those of leases and of the watch have none."""
        text = self.sudo(f"cat {STATE}/journal.jsonl 2>/dev/null || true")
        return [record for record in whole_records(text.splitlines()) if record.get("activation")]

    def files(self) -> str:
        """Every file of the tool on this host and when it was changed, but for the caches and what the watch writes."""
        left_out = "-not -path '*/cache/*' -not -name watch.json -not -path '*/metrics/*'"
        folders = f"{STATE} /etc/systemd/system /usr/local/bin"
        return self.sudo(f"find {folders} \\( -type f -o -type l \\) {left_out} -printf '%p %T@\\n' | sort")

    def is_free(self) -> bool:
        """Has the rollout's lease been given back, or ended by itself, by this host's own clock?"""
        lease = json.loads(self.sudo(f"cat {STATE}/lease.json 2>/dev/null || echo {{}}"))
        return "until" not in lease or str(lease["until"]) < self.ssh("date -u +%Y-%m-%dT%H:%M:%S").strip()

    def tried(self, release: str) -> int:
        """How many activations of the release the journal holds."""
        return len({record["activation"] for record in self.journal() if record["release"] == release})

    def available_kib(self) -> int:
        return int(self.ssh("awk '/MemAvailable/ {print $2}' /proc/meminfo"))

    def curl(self, path: str, *arguments: str) -> str:
        return self.ssh(f"curl -sS -m 20 {' '.join(arguments)} http://127.0.0.1:8000{path}", check=False)

    def serves(self) -> bool:
        """One real generation through the port."""
        body = json.dumps(
            {"model": "gemma4-fast", "messages": [{"role": "user", "content": "Say ready."}], "max_tokens": 8}
        )
        answer = self.curl("/v1/chat/completions", "-H 'Content-Type: application/json'", "-d", shlex.quote(body))
        try:
            return int(json.loads(answer)["usage"]["completion_tokens"]) > 0
        except (ValueError, KeyError, TypeError):
            return False


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    seconds: float


def start_pyinfra(*arguments: str, deploy: str = "deploy.py") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PYINFRA, "inventory/lab.py", deploy, "-y", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYINFRA_PROGRESS": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def pyinfra(*arguments: str, deploy: str = "deploy.py", timeout_s: float = 420) -> Outcome:
    """Run the tool as an operator does, to its end."""
    started = time.monotonic()
    process = start_pyinfra(*arguments, deploy=deploy)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"pyinfra did not end within {timeout_s} s; it said:\n{output[-3000:]}") from None
    return Outcome(process.returncode, re.sub(r"\x1b\[[0-9;]*m", "", output), time.monotonic() - started)


def report_of(output: str) -> str:
    """The text of the report that a run names in its last lines."""
    return Path(re.findall(r"report: (\S+)\.html", output)[-1] + ".json").read_text()


def sparkfleet(*arguments: str) -> Outcome:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sparkfleet", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout if done.returncode == 0 else done.stderr, time.monotonic() - started)


def shown(host: str, *data: str) -> dict[str, Any]:
    """The release that `sparkfleet show` prints for a host."""
    document: dict[str, Any] = json.loads(printed(host, "json", *data))
    return document


def printed(host: str, form: str, *data: str) -> str:
    """What `sparkfleet show` prints for a host in one of its forms."""
    extra = [argument for pair in data for argument in ("--data", pair)]
    outcome = sparkfleet("show", host, "--inventory", "inventory/lab.py", "--format", form, *extra)
    assert outcome.code == 0, outcome.output
    return outcome.output
