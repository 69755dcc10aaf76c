"""`enroll`: a host of which only the first-boot user's password is known becomes one that the fleet's tasks can reach.

The host's key is pinned, the operator's key installed and tried, sudo checked, the machine looked at. Nothing else is
changed, and nothing at all before it is known that the inventory can take the host.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import paramiko

from sparkfleet import ROOT
from sparkfleet.errors import FleetError, SettingsError
from sparkfleet.inventory.entry import HostEntry
from sparkfleet.inventory.inventory_file import Edit, check_group
from sparkfleet.node import facts as asking
from sparkfleet.node.pins import Pins
from sparkfleet.preflight import preflight, seen
from sparkfleet.preflight.seen import Seen
from sparkfleet.rollout.fleet_run import plan_host
from sparknode.base.shape import written
from sparknode.facts.facts import Facts

CONNECT_S = 15
COMMAND_S = 60
SUDOERS = "/etc/sudoers.d/sparkfleet"
# What pyinfra and the copying of weights call. A shell as root is root: this says who may, and not how much.
SUDO_RULE = "{user} ALL=(root) NOPASSWD: /bin/sh, /usr/bin/sh, /usr/bin/rsync"
# The last line of the file may have no end.
_INSTALL_KEY = (
    "umask 077; mkdir -p ~/.ssh; key=$(cat); file=~/.ssh/authorized_keys; "
    'grep -qxF "$key" "$file" 2>/dev/null || { '
    '[ -z "$(tail -c 1 "$file" 2>/dev/null)" ] || echo >> "$file"; printf "%s\\n" "$key" >> "$file"; }'
)
# What ssh offers by itself, and so pyinfra.
_USUAL_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_BROKEN = (OSError, EOFError, paramiko.SSHException)


def enroll(options: argparse.Namespace) -> int:
    """Do it all; the first thing that does not hold ends it, with what to do."""
    from sparkfleet.inventory.inventory import read_inventory

    # Before the connection: with pyinfra's command line comes gevent, which must patch sockets and threads first.
    entries = read_inventory(options.inventory)
    public = Path(f"{options.key}.pub").expanduser()
    if not public.exists():
        raise SettingsError(f"there is no public key {public}", "a key pair", "ssh-keygen -t ed25519, or give --key")
    line = _line(options)
    edit = None
    if options.write:
        check_group(entries, options.inventory, options.group, options.host)
        edit = Edit(options.inventory, options.group, options.host, line)
    try:
        node, found = _made_reachable(options, public.read_text(encoding="utf-8").strip())
        like = next((entry for entry in entries if options.group in entry.groups), None)
        print("\n".join([*_machine(found), *_preflight(node, like)]))
        if edit:
            edit.apply()
    except (KeyboardInterrupt, EOFError):
        raise FleetError(
            "stopped at a question", "a yes or no", "enroll it again; what was done so far is not done twice"
        ) from None
    finally:
        if edit:
            edit.drop()
    print(f"{'added' if edit else 'add'} to {options.group} in {options.inventory}:\n\n    {line}\n")
    print(f"next: pyinfra {options.inventory} deploy.py --limit {options.host}")
    return 0


def _made_reachable(options: argparse.Namespace, public: str) -> tuple[Seen, Facts]:
    """Pin, log in, install the key, see that it opens the door, check sudo; return the host's probe."""
    session = Session(options)
    try:
        session.pin()
        session.log_in(public)
        session.run(_INSTALL_KEY, public)
        session.require_own_key(public)
        session.require_sudo()
        return session.probe()
    finally:
        session.transport.close()


def fingerprint(key: paramiko.PKey) -> str:
    """Return the key's fingerprint as ssh shows it."""
    return f"{key.get_name()} {key.fingerprint}"


class Session:
    """One connection to a host that nobody trusts yet."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._address = options.address or options.host
        self._pins = Pins(ROOT / options.known_hosts, self._address, options.port)
        self._password: str | None = None
        self.transport = self._connected()

    def _connected(self) -> paramiko.Transport:
        try:
            connection = socket.create_connection((self._address, self._options.port), timeout=CONNECT_S)
            transport = paramiko.Transport(connection)
            # A host has several keys; the one to ask for is the one that is pinned, as ssh does.
            offered = transport.get_security_options()
            offered.key_types = self._pins.preferred(tuple(offered.key_types))
            transport.start_client(timeout=CONNECT_S)
        except _BROKEN as error:
            raise FleetError(
                f"{self._address}:{self._options.port} does not answer as an SSH server: {error}",
                "a Spark whose first-boot setup is done",
                "check name, address and cable; `ping`, then `ssh-keyscan`",
            ) from None
        return transport

    def pin(self) -> None:
        """Accept a host key once, and from then on no other."""
        options, found = self._options, self.transport.get_remote_server_key()
        pinned = self._pins.keys
        if found in self._pins.revoked:
            raise FleetError(
                f"{self._pins.name} shows a key that {options.known_hosts} has revoked: {fingerprint(found)}",
                "a key that is not revoked",
                "someone revoked it for a reason; do not continue before you know it",
            )
        if pinned and found not in pinned and not options.renew:
            raise FleetError(
                f"{self._pins.name} shows another host key than the pinned one: {fingerprint(found)}",
                ", ".join(map(fingerprint, pinned)),
                "installed anew? compare the fingerprint at its console, then enroll it with --renew; otherwise "
                "somebody else answers in its place",
            )
        print(f"host key: {fingerprint(found)}{', as pinned' if found in pinned else ''}")
        if found in pinned:
            return
        if options.accept and options.accept != found.fingerprint:
            raise FleetError(
                f"its host key is {found.fingerprint}", options.accept, "do not continue before you know why"
            )
        if not options.accept and not _yes(f"pin it in {options.known_hosts}? Compare it at the console first."):
            raise FleetError("the host key was not accepted", "a yes, or --accept with its fingerprint")
        self._pins.replace(found)

    def log_in(self, public: str) -> None:
        """Log in with the operator's key, from the agent or the file, or else with the password, asked for once."""
        user = self._options.user
        if self._opens_with_own_key(self.transport, public):
            return
        try:
            self.transport.auth_password(user, self.password())
        except _BROKEN as error:
            raise FleetError(
                f"{user} could not log in: {error}",
                "the password of the user that the first-boot setup made",
                "give --user, and try the password at the host's console",
            ) from None

    def require_own_key(self, public: str) -> None:
        """See that the installed key opens a new connection: everything from here on rests on it."""
        second = self._connected()
        try:
            if not self._opens_with_own_key(second, public):
                raise FleetError(
                    f"the key {self._options.key}.pub was installed and does not open {self._address}",
                    "a login with the key that pyinfra will use",
                    "look into ~/.ssh and sshd's log on the host: owner, permissions, AuthorizedKeysFile; a key with a "
                    "passphrase must be in the agent (ssh-add)",
                )
        finally:
            second.close()

    def _opens_with_own_key(self, transport: paramiko.Transport, public: str) -> bool:
        for key in self._own_keys(public):
            try:
                transport.auth_publickey(self._options.user, key)
            except _BROKEN:
                continue
            return transport.is_authenticated()
        return False

    def _own_keys(self, public: str) -> Iterator[paramiko.PKey]:
        """Yield the private half of the operator's key: the agent's, or the file's where it has no passphrase."""
        wanted = public.split()[1] if len(public.split()) > 1 else ""
        with suppress(*_BROKEN):
            yield from (key for key in paramiko.Agent().get_keys() if key.get_base64() == wanted)
        # A key with a passphrase raises TypeError out of the library below paramiko.
        with suppress(ValueError, TypeError, *_BROKEN):
            yield paramiko.PKey.from_path(Path(self._options.key).expanduser())

    def password(self) -> str:
        if self._password is None:
            ask = f"password of {self._options.user} on {self._options.host}: "
            typed = sys.stdin.readline() if self._options.password_stdin else getpass.getpass(ask)
            self._password = typed.rstrip("\n")
        return self._password

    def run(self, command: str, stdin: str = "") -> str:
        """Run a command; raises FleetError with its last word when it fails."""
        code, output = self.attempt(command, stdin)
        if code:
            said = output.strip().splitlines()[-1:] or ["no output"]
            raise FleetError(f"`{command[:60]}` ended with {code}: {said[0]}", "success", "try it by ssh")
        return output

    def attempt(self, command: str, stdin: str = "") -> tuple[int, str]:
        try:
            channel = self.transport.open_session(timeout=CONNECT_S)
            channel.settimeout(COMMAND_S)
            channel.set_combine_stderr(True)
            channel.exec_command(command)
            # A command that needs no input may have ended by now; how it ended is told below.
            with suppress(OSError):
                channel.sendall(f"{stdin}\n".encode())
                channel.shutdown_write()
            output = channel.makefile("rb").read().decode(errors="replace")
            return channel.recv_exit_status(), output
        except _BROKEN as error:
            raise FleetError(f"the connection broke: {error}", "an answer", "enroll it again") from None

    def require_sudo(self) -> None:
        """pyinfra has no password to give, so sudo must not ask for one."""
        if self.attempt("sudo -n sh -c true")[0] == 0:
            return
        user = self._options.user
        if self.attempt("sudo -S -p '' sh -c true", self.password())[0]:
            raise FleetError(
                f"{user} may not use sudo", "a user of the sudo group", f"at the console: usermod -aG sudo {user}"
            )
        rule = SUDO_RULE.format(user=user)
        if not self._options.sudoers and not _yes(f"sudo asks for a password. Write «{rule}» to {SUDOERS}?"):
            raise FleetError("sudo asks for a password", "a login that needs none", f"--sudoers writes: {rule}")
        text, new = base64.b64encode(f"{rule}\n".encode()).decode(), f"{SUDOERS}.new"
        script = f"umask 227; echo {text} | base64 -d >{new} && visudo -cqf {new} && mv {new} {SUDOERS}"
        self.run(f"sudo -S -p '' sh -c '{script}'", self.password())
        self.run("sudo -n sh -c true")

    def probe(self) -> tuple[Seen, Facts]:
        said = self.run(
            f"sudo -n sh -c {shlex.quote(asking.CARRIED.format('probe'))}", "\n".join(asking.program_text())
        ).splitlines()
        node = seen.read(said[-1] if said else "")
        if node.facts is None:
            raise FleetError(node.error, "a probe document", "is python3 installed there? try again")
        return node, node.facts


def _yes(question: str) -> bool:
    return sys.stdin.isatty() and input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _machine(facts: Facts) -> list[str]:
    host, gib = facts.host, (facts.memory.total_kib or 0) / 1024**2
    gpus = ", ".join(f"{gpu.name} ({gpu.driver_version})" for gpu in facts.gpu.devices) or "none"
    release = json.dumps(written(host.dgx or host.os), ensure_ascii=False)
    return [
        f"machine: {host.hostname}, {host.machine}, kernel {host.kernel}, {release}",
        f"memory: {gib:.1f} GiB; GPU: {gpus}; Docker: {facts.docker.server_version or 'none'}",
    ]


def _preflight(node: Seen, like: HostEntry | None) -> list[str]:
    """Return what preflight says, for the release of another host in the group."""
    try:
        plan = plan_host(like) if like else None
    except FleetError as error:
        return [f"preflight: not asked, this inventory gives no release yet ({error.found})"]
    if plan is None:
        return ["preflight: not asked, the group has no host whose release could be looked at"]
    said = preflight.check(node, plan.release, plan.settings.catalog())
    findings = [one for one in said if one.severity != "info"]
    return [f"preflight: {finding.severity}: {finding.text()}" for finding in findings] or ["preflight: fit"]


def _line(options: argparse.Namespace) -> str:
    """Return the inventory's entry, with all that pyinfra needs to reach the host as this command did."""
    data = {"ssh_user": options.user, "ssh_hostname": options.address, "ssh_port": options.port}
    data |= {"ssh_known_hosts_file": options.known_hosts, "ssh_strict_host_key_checking": "yes"}
    data |= {"ssh_key": None if options.key in _USUAL_KEYS else options.key}
    kept = {key: value for key, value in data.items() if value not in (None, 22)}
    return f"({json.dumps(options.host)}, {json.dumps(kept)})"
