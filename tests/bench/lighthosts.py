"""Light hosts: an sshd each, on its own loopback address, over one root file system of the lab.

They boot nothing. What a converged host of the lab answered to the probe's commands is replayed word by word, so a
light host costs a process and a few megabytes, and says what a real one said. Every mount lives in the host's own
namespace and every process in a process group that ends with this one: nothing outlives the block, nor a crash.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import rootfs
from tests.lab.config import USER

SUITE = "trixie"
START_S = 60.0

# The host's whole life: mounts of its own, then sshd in the foreground.
INIT = """
set -e
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" "$ROOT"
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/run"
mkdir -p "$ROOT/run/sshd"
mount --bind "$SHARED" "$ROOT/mnt"
ln -s /mnt/docker.sock "$ROOT/run/docker.sock"
exec chroot "$ROOT" /usr/sbin/sshd -D -o ListenAddress="$ADDRESS" -o PidFile=none
"""

REPLAY = """#!/bin/sh
# Written by the benchmark: a simulation that repeats what a real host of the lab answered to this command.
asked="${0##*/}"
for word; do asked="$asked $word"; done
case "$asked" in
%s*) echo "light host: no answer was recorded for $asked" >&2; exit 99;;
esac
"""
REPLY = """%s) cat <<'=end='; cat >&2 <<'=end='; exit %d;;
%s=end=
%s=end=
"""


# Every command that comes over SSH, counted where it arrives.
COUNTED = """#!/bin/sh
echo "$SSH_CONNECTION" >>/mnt/commands
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""

# With /mnt/recorded there, a probe takes as long as on a host that has its processors to itself, and says the same.
PYTHON = """#!/bin/sh
if [ "$2" = probe ] && [ -e /mnt/recorded ]; then
    sleep %.3f
    exec sed "s/\\"time\\": [0-9.]*/\\"time\\": $(date +%%s)/" /usr/local/share/probe.json
fi
exec /usr/bin/python3 "$@"
"""


@dataclass(frozen=True)
class Answer:
    """What a command of a real host said."""

    argv: Sequence[str]
    rc: int
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True)
class Probe:
    """What the probe of a real host printed, and the seconds that it took, one number a time."""

    stdout: str = ""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass
class Snapshot:
    """A real host's answers, those of its Docker's daemon by path, and its files: archives that are unpacked onto the
    light one's root.
    """

    answers: list[Answer] = field(default_factory=list)
    daemon: dict[str, str] = field(default_factory=dict)
    archives: list[Path] = field(default_factory=list)
    probe: Probe = field(default_factory=Probe)


@dataclass(frozen=True)
class LightHost:
    name: str
    address: str
    root: Path


@dataclass(frozen=True)
class Light:
    """Hosts that run, and the ssh settings with which pyinfra and Ansible reach them."""

    hosts: list[LightHost]
    ssh: dict[str, Any]
    shared: Path

    def commands(self) -> int:
        """How many commands came over SSH since this was asked last, all hosts together."""
        count = len((self.shared / "commands").read_text().splitlines())
        (self.shared / "commands").write_text("")
        return count

    def recorded(self, wanted: bool) -> None:
        """Have probes answered by the recording, or carried out by all hosts on this machine's processors."""
        (self.shared / "recorded").unlink(missing_ok=True)
        if wanted:
            (self.shared / "recorded").touch()


class Daemon(socketserver.ThreadingUnixStreamServer):
    """A simulation of Docker's daemon that repeats what a real host's answered."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, path: Path, answers: Mapping[str, str]) -> None:
        super().__init__(str(path), Repeat)
        self.answers = answers

    def serve(self) -> None:
        # A host has a daemon and processors of its own; this one must not wait behind a hundred hosts' probes.
        os.nice(-15)
        self.serve_forever()


class Repeat(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Daemon)
        path = self.rfile.readline().decode().split()[1]
        nothing = f"light host: no answer was recorded for {path}\n501"
        body, _, status = self.server.answers.get(path, nothing).rpartition("\n")
        self.wfile.write(f"HTTP/1.0 {status} recorded\r\n\r\n{body}".encode())


@contextmanager
def light_hosts(count: int, snapshot: Snapshot) -> Iterator[Light]:
    folder = Path(tempfile.mkdtemp(prefix="light-hosts-"))
    shared = folder / "shared"
    shared.mkdir()
    (shared / "commands").touch()
    (shared / "commands").chmod(0o666)
    processes: list[subprocess.Popen[bytes]] = []
    # One for all hosts: what lies in the shared folder is in each of them.
    daemon = Daemon(shared / "docker.sock", snapshot.daemon)
    served = multiprocessing.get_context("fork").Process(target=daemon.serve, daemon=True)
    served.start()
    try:
        key = _key(folder)
        hosts = [LightHost(f"light-{n}", f"127.83.{n // 250}.{n % 250 + 1}", folder / f"h{n}") for n in range(count)]
        for host in hosts:
            _furnish(host, snapshot, key.with_suffix(".pub").read_text())
            processes.append(_start(host))
        for host in hosts:
            _await_greeting(host)
        known = folder / "known_hosts"
        public = (hosts[0].root / "upper/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
        known.write_text("".join(f"{host.address} {' '.join(public)}\n" for host in hosts))
        yield Light(hosts, {"ssh_user": USER, "ssh_key": str(key), "ssh_known_hosts_file": str(known)}, shared)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            process.wait(30)
        served.kill()
        served.join(30)
        daemon.server_close()
        shutil.rmtree(folder, ignore_errors=True)


def _key(folder: Path) -> Path:
    key = folder / "id_ed25519"
    for path in (key, folder / "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=60)
    return key


def _furnish(host: LightHost, snapshot: Snapshot, public: str) -> None:
    upper = host.root / "upper"
    for name in ("upper", "work", "root"):
        (host.root / name).mkdir(parents=True)
    for archive in snapshot.archives:
        subprocess.run(["tar", "-xf", str(archive), "-C", str(upper)], check=True, timeout=120)
    ssh = upper / "etc/ssh"
    ssh.mkdir(parents=True, exist_ok=True)
    for name in ("ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"):
        shutil.copy(host.root.parent / name.replace("ssh_host_ed25519_key", "host_key"), ssh / name)
    keys = ssh / "authorized_keys"
    keys.write_text(public)
    config = "AuthorizedKeysFile /etc/ssh/authorized_keys\nHostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n"
    config += "StrictModes no\nMaxStartups 200\nAllowTcpForwarding no\nUsePAM yes\n"
    (ssh / "sshd_config").write_text(f"{config}ForceCommand /usr/local/sbin/counted\n")
    programs = upper / "usr/local/sbin"
    programs.mkdir(parents=True, exist_ok=True)
    scripts = {"counted": COUNTED, "python3": PYTHON % min(snapshot.probe.wall)}
    for program in {answer.argv[0] for answer in snapshot.answers}:
        replies = [_reply(answer) for answer in snapshot.answers if answer.argv[0] == program]
        scripts[program] = REPLAY % "".join(replies)
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (upper / "usr/local/share").mkdir(parents=True, exist_ok=True)
    (upper / "usr/local/share/probe.json").write_text(snapshot.probe.stdout)


def _reply(answer: Answer) -> str:
    return REPLY % (shlex.quote(" ".join(answer.argv)), answer.rc, _lines(answer.stdout), _lines(answer.stderr))


def _lines(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


def _start(host: LightHost) -> subprocess.Popen[bytes]:
    # The child dies with this process, and its namespaces and mounts with it.
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INIT]
    environment = {
        "PATH": os.environ["PATH"],
        "LOWER": str(rootfs.path(SUITE)),
        "UPPER": str(host.root / "upper"),
        "WORK": str(host.root / "work"),
        "ROOT": str(host.root / "root"),
        "ADDRESS": host.address,
        "SHARED": str(host.root.parent / "shared"),
    }
    return subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=sys.stderr)


def _await_greeting(host: LightHost) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            with socket.create_connection((host.address, 22), 1) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        if time.monotonic() > until:
            raise TimeoutError(f"{host.name} ({host.address}) did not greet within {START_S:.0f} s")
        time.sleep(0.05)
