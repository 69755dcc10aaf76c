"""`enroll`: a host of which only the first-boot user's password is known becomes one that the fleet's tasks can reach.

The host's key is pinned, the operator's key installed, sudo checked, the machine looked at. Nothing else is changed.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

import paramiko

from sparkfleet import facts, preflight
from sparkfleet.catalog import ROOT
from sparkfleet.errors import FleetError, SettingsError
from sparkfleet.fleet import HostEntry, plan_host
from sparkfleet.inventory_file import entry_line, with_host

CONNECT_S = 15
COMMAND_S = 60
SUDOERS = "/etc/sudoers.d/sparkfleet"
# What pyinfra and the copying of weights call. A shell as root is root: this says who may, and not how much.
SUDO_RULE = "{user} ALL=(root) NOPASSWD: /bin/sh, /usr/bin/sh, /usr/bin/rsync\n"
_INSTALL_KEY = (
    'umask 077; mkdir -p ~/.ssh; key=$(cat); grep -qxF "$key" ~/.ssh/authorized_keys 2>/dev/null || '
    'printf "%s\\n" "$key" >> ~/.ssh/authorized_keys'
)


def add_commands(commands: Any) -> None:
    parser = commands.add_parser(
        "enroll", help="make a new host reachable: pin its key, install yours, check sudo, look"
    )
    parser.add_argument("host", help="name or address, as the inventory shall have it")
    parser.add_argument("--inventory", default="inventory/prod.py", help="default: inventory/prod.py")
    parser.add_argument("--group", default="fleet", help="the inventory's list that it joins; default: fleet")
    parser.add_argument("--write", action="store_true", help="add the line to the inventory, and not only print it")
    parser.add_argument("--user", default="nvidia", help="the first-boot user; default: nvidia")
    parser.add_argument("--address", help="where it answers, when that is not its name")
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument(
        "--key", type=Path, default=Path("~/.ssh/id_ed25519"), help="your private key, with .pub beside"
    )
    parser.add_argument("--known-hosts", default="inventory/known_hosts", help="where its key is pinned; commit it")
    parser.add_argument("--accept", metavar="SHA256:…", help="the fingerprint to expect, instead of a question")
    parser.add_argument("--renew", action="store_true", help="pin a new key for a host that was installed anew")
    parser.add_argument("--sudoers", action="store_true", help=f"write {SUDOERS} where sudo wants a password")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parser.set_defaults(run=enroll)


def enroll(options: argparse.Namespace) -> int:
    """Do it all; the first thing that does not hold ends it, with what to do."""
    from sparkfleet.inventory import read_inventory

    # Before the connection: with pyinfra's command line comes gevent, which must patch sockets and threads first.
    entries = read_inventory(options.inventory, {})
    public = _public_key(options.key.expanduser())
    transport = _connect(options.address or options.host, options.port)
    try:
        _pin(transport.get_remote_server_key(), options)
        password = _log_in(transport, options)
        _run(transport, _INSTALL_KEY, public, "install the key")
        _require_sudo(transport, options, password)
        node = _probe(transport)
    finally:
        transport.close()
    print("\n".join(_machine(node)))
    print("\n".join(_preflight(node, next((entry for entry in entries if options.group in entry.groups), None))))
    return _join(options)


def fingerprint(key: paramiko.PKey) -> str:
    """Return the key's fingerprint as ssh shows it."""
    return f"{key.get_name()} {key.fingerprint}"


def _public_key(private: Path) -> str:
    path = private.with_name(f"{private.name}.pub")
    try:
        return path.read_text().strip()
    except OSError:
        raise SettingsError(
            f"there is no public key {path}", "a key pair of yours", "ssh-keygen -t ed25519, or give --key"
        ) from None


def _connect(address: str, port: int) -> paramiko.Transport:
    try:
        transport = paramiko.Transport(socket.create_connection((address, port), timeout=CONNECT_S))
        transport.start_client(timeout=CONNECT_S)
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise FleetError(
            f"{address}:{port} does not answer as an SSH server: {error}",
            "a Spark whose first-boot setup is done",
            "check name, address and cable; `ping`, then `ssh-keyscan`",
        ) from None
    return transport


def _pin(found: paramiko.PKey, options: argparse.Namespace) -> None:
    """Accept a host key once, and from then on no other."""
    path = ROOT / options.known_hosts
    keys = paramiko.HostKeys(str(path) if path.exists() else None)
    address = options.address or options.host
    name = address if options.port == 22 else f"[{address}]:{options.port}"
    pinned = list((keys.lookup(name) or {}).values())
    if found in pinned:
        print(f"host key: {fingerprint(found)}, as pinned")
        return
    if pinned and not options.renew:
        raise FleetError(
            f"{name} shows another host key than the pinned one: {fingerprint(found)}",
            ", ".join(map(fingerprint, pinned)),
            "installed anew? compare the fingerprint at its console, then enroll it with --renew; otherwise somebody "
            "else answers in its place",
        )
    print(f"host key: {fingerprint(found)}")
    if options.accept and options.accept != found.fingerprint:
        raise FleetError(f"the host's key is {found.fingerprint}", options.accept, "do not go on before you know why")
    if not options.accept and not _yes(f"pin it in {options.known_hosts}? Compare it at the host's console first."):
        raise FleetError("the host key was not accepted", "a yes, or --accept with its fingerprint")
    if pinned:
        keys.pop(name)
    keys.add(name, found.get_name(), found)
    path.parent.mkdir(parents=True, exist_ok=True)
    keys.save(str(path))


def _yes(question: str) -> bool:
    return sys.stdin.isatty() and input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _log_in(transport: paramiko.Transport, options: argparse.Namespace) -> str | None:
    """Log in with the operator's key, or else with the password; return the password if it was needed."""
    try:
        transport.auth_publickey(options.user, paramiko.PKey.from_path(options.key.expanduser()))
        return None
    except (OSError, ValueError, paramiko.SSHException):
        pass
    password = _password(options)
    try:
        transport.auth_password(options.user, password)
    except paramiko.SSHException as error:
        raise FleetError(
            f"{options.user} could not log in: {error}",
            "the password of the user that the first-boot setup made",
            "give --user, and try the password at the host's console",
        ) from None
    return password


def _password(options: argparse.Namespace) -> str:
    if options.password_stdin:
        return sys.stdin.readline().rstrip("\n")
    return getpass.getpass(f"password of {options.user} on {options.host}: ")


def _run(transport: paramiko.Transport, command: str, stdin: str = "", what: str = "") -> str:
    code, stdout, stderr = _try(transport, command, stdin)
    if code:
        said = (stderr or stdout).strip().splitlines()
        raise FleetError(
            f"could not {what}: exit code {code}, {said[-1] if said else 'no word'}", "success", "try it by ssh"
        )
    return stdout


def _try(transport: paramiko.Transport, command: str, stdin: str = "") -> tuple[int, str, str]:
    try:
        channel = transport.open_session(timeout=CONNECT_S)
        channel.settimeout(COMMAND_S)
        channel.exec_command(command)
        channel.sendall(f"{stdin}\n".encode())
        channel.shutdown_write()
        stdout, stderr = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
        return channel.recv_exit_status(), stdout.decode(errors="replace"), stderr.decode(errors="replace")
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise FleetError(f"the connection broke: {error}", "an answer", "enroll it again") from None


def _require_sudo(transport: paramiko.Transport, options: argparse.Namespace, password: str | None) -> None:
    """pyinfra has no password to give, so sudo must not ask for one."""
    if _try(transport, "sudo -n sh -c true")[0] == 0:
        return
    if password is None:
        password = _password(options)
    if _try(transport, "sudo -S -p '' sh -c true", password)[0]:
        raise FleetError(
            f"{options.user} may not use sudo",
            "a user of the sudo group",
            f"at the console, as an administrator: usermod -aG sudo {options.user}",
        )
    rule = SUDO_RULE.format(user=options.user)
    if not options.sudoers and not _yes(f"sudo asks for a password. Write this to {SUDOERS}?\n  {rule}"):
        raise FleetError("sudo asks for a password", "a login that may use it without", f"--sudoers writes: {rule}")
    text = base64.b64encode(rule.encode()).decode()
    install = (
        f"umask 227; echo {text} | base64 -d >{SUDOERS}.new && visudo -cqf {SUDOERS}.new && mv {SUDOERS}.new {SUDOERS}"
    )
    _run(transport, f"sudo -S -p '' sh -c '{install}'", password, f"write {SUDOERS}")
    _run(transport, "sudo -n sh -c true", "", "use sudo without a password")


def _probe(transport: paramiko.Transport) -> dict[str, Any]:
    command = f"sudo -n sh -c {shlex.quote(facts.CARRIED)}"
    said = _run(transport, command, "\n".join(facts.program_text()), "look at it").splitlines()
    node = preflight.read(said[-1] if said else "")
    if "error" in node:
        raise FleetError(str(node["error"]), "a probe document", "is python3 installed there? try again")
    return node


def _machine(node: dict[str, Any]) -> list[str]:
    host, memory = node.get("host") or {}, (node.get("memory") or {}).get("total_kib") or 0
    gpus = ", ".join(f"{gpu.get('name')} ({gpu.get('driver_version')})" for gpu in node["gpu"]["devices"]) or "none"
    release = json.dumps(host.get("dgx") or host.get("os"), ensure_ascii=False)
    return [
        f"machine: {host.get('hostname')}, {host.get('machine')}, kernel {host.get('kernel')}, {release}",
        f"memory: {memory / 1024**2:.1f} GiB; GPU: {gpus}; Docker: {node['docker'].get('server_version') or 'none'}",
    ]


def _preflight(node: dict[str, Any], like: HostEntry | None) -> list[str]:
    """Return what preflight says, for the release of another host in the group."""
    if like is None:
        return ["preflight: not asked, the group has no host whose release could be looked at"]
    try:
        plan = plan_host(like)
    except FleetError as error:
        return [f"preflight: not asked, this inventory gives no release yet ({error.found})"]
    findings = preflight.check(node, plan.release, plan.settings.catalog())
    return [f"preflight: {finding.severity}: {finding.text()}" for finding in findings] or ["preflight: fit"]


def _join(options: argparse.Namespace) -> int:
    data: dict[str, object] = {"ssh_user": options.user}
    data |= {"ssh_hostname": options.address} if options.address else {}
    data |= {"ssh_port": options.port} if options.port != 22 else {}
    data |= {"ssh_known_hosts_file": options.known_hosts, "ssh_strict_host_key_checking": "yes"}
    line = entry_line(options.host, data)
    path = ROOT / options.inventory
    if not options.write:
        print(f"add to {options.group} in {options.inventory}:\n\n    {line}\n")
    else:
        text = with_host(path.read_text(encoding="utf-8"), options.group, options.host, line)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)
        print(f"added to {options.group} in {options.inventory}: {line}")
    print(f"next: pyinfra {options.inventory} deploy.py --limit {options.host}")
    return 0
