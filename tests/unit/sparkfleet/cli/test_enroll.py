"""A new host against a real SSH server on loopback: keys, passwords, sudo, and the inventory's text."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from sparkfleet.cli.enroll import Session
from sparkfleet.inventory.inventory_file import with_host
from tests.lab.cases.reading import wait_for
from tests.plan.harness import own_command
from tests.unit.sparkfleet.node.sshd import Sshd


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    found = Sshd(tmp_path / "home")
    yield found
    found.close()


class Desk:
    """The operator's side: a key pair, a pin file and an inventory in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = paramiko.ECDSAKey.generate()
        key.write_private_key_file(str(folder / "id"))
        (folder / "id.pub").write_text(f"ecdsa-sha2-nistp256 {key.get_base64()} ann@desk\n")
        self.inventory = folder / "fleet.py"
        self.inventory.write_text('canary = []\nfleet = [\n    ("spark-1", {}),  # the first one\n]\n')
        self.out = self.err = ""

    def enroll(self, host: Sshd, *more: str, password: str = "secret", name: str = "127.0.0.1") -> int:
        """Run the command; return its exit code, and keep what it said."""
        own = ["--key", str(self.folder / "id"), "--known-hosts", str(self.folder / "pins"), "--port", str(host.port)]
        own += ["--inventory", str(self.inventory), "--password-stdin"]
        done = own_command("enroll", name, *own, *more, stdin=f"{password}\n")
        self.out, self.err = done.stdout, done.stderr
        return done.returncode


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def accept(host: Sshd) -> tuple[str, str]:
    return "--accept", str(host.key.fingerprint)


def test_a_host_with_a_password_becomes_one_with_a_key(host: Sshd, desk: Desk) -> None:
    assert desk.enroll(host, *accept(host), "--write") == 0, desk.err
    said = desk.out
    assert host.logins == ["password", "key"], "what was installed is tried"
    assert (host.home / ".ssh" / "authorized_keys").read_text() == (desk.folder / "id.pub").read_text()
    assert (host.home / ".ssh" / "authorized_keys").stat().st_mode & 0o077 == 0
    assert f"host key: ecdsa-sha2-nistp256 {host.key.fingerprint}" in said
    assert "machine: " in said
    assert "preflight: " in said
    assert "--limit 127.0.0.1" in said
    assert "secret" not in said
    text = desk.inventory.read_text()
    assert 'fleet += [("127.0.0.1", {"ssh_user"' in text
    assert f'"ssh_known_hosts_file": "{desk.folder}/pins"' in text

    assert desk.enroll(host, password="") == 0
    said = desk.out
    assert host.logins.count("password") == 1, "the second time needs no password and no question"
    assert "as pinned" in said
    assert (host.home / ".ssh" / "authorized_keys").read_text().count("ecdsa-sha2-nistp256") == 1


def test_a_command_that_ends_before_its_input_is_judged_by_its_end(host: Sshd, desk: Desk) -> None:
    own = {"host": "127.0.0.1", "address": None, "port": host.port, "known_hosts": str(desk.folder / "pins")}
    session = Session(argparse.Namespace(**own))
    try:
        session.transport.auth_password("nvidia", "secret")
        assert session.attempt("echo no >&2; exit 7", "x" * 8_000_000) == (7, "no\n")
    finally:
        session.transport.close()


def test_a_changed_key_is_refused_with_both_until_it_is_renewed(host: Sshd, desk: Desk) -> None:
    assert desk.enroll(host, *accept(host)) == 0
    old, host.key = host.key, paramiko.ECDSAKey.generate()
    assert desk.enroll(host, *accept(host)) == 2
    error = desk.err
    assert old.fingerprint in error
    assert host.key.fingerprint in error
    assert desk.enroll(host, *accept(host), "--renew") == 0
    assert desk.enroll(host) == 0


@pytest.mark.parametrize(
    ("more", "password", "says"),
    [
        (["--accept", "SHA256:another"], "secret", "do not continue before you know why"),
        ([], "secret", "the host key was not accepted"),
        (["--accept", "OWN"], "wrong", "nvidia could not log in"),
        (["--accept", "OWN", "--user", "ann"], "secret", "ann could not log in"),
        (["--accept", "OWN", "--key", "/no/such/key"], "secret", "there is no public key /no/such/key.pub"),
    ],
)
def test_what_does_not_hold_changes_nothing(host: Sshd, desk: Desk, more: list[str], password: str, says: str) -> None:
    own = [str(host.key.fingerprint) if word == "OWN" else word for word in more]
    assert desk.enroll(host, *own, password=password) == 2
    error = desk.err
    assert says in error
    assert password not in error.replace("the password of", "")
    assert not (host.home / ".ssh").exists()


def test_nobody_there_is_said(host: Sshd, desk: Desk) -> None:
    host.close()
    assert desk.enroll(host) == 2
    assert "does not answer as an SSH server" in desk.err


@pytest.mark.parametrize(
    ("sudo", "more", "code", "says"),
    [
        ("none", ["--sudoers"], 2, "may not use sudo"),
        ("password", [], 2, "sudo asks for a password"),
        ("password", ["--sudoers"], 0, "machine: "),
    ],
)
def test_sudo_must_not_ask(tmp_path: Path, desk: Desk, sudo: str, more: list[str], code: int, says: str) -> None:
    host = Sshd(tmp_path / "other", sudo)
    try:
        assert desk.enroll(host, *accept(host), *more) == code
    finally:
        host.close()
    said = desk.out + desk.err
    assert says in said
    rule = host.home / "sudoers.d" / "sparkfleet"
    assert rule.exists() is (code == 0)
    if code == 0:
        assert rule.read_text() == "nvidia ALL=(root) NOPASSWD: /bin/sh, /usr/bin/sh, /usr/bin/rsync\n"
        assert rule.stat().st_mode & 0o777 == 0o440


def test_a_key_of_its_own_is_in_the_entry_and_the_usual_one_is_not(host: Sshd, desk: Desk) -> None:
    assert desk.enroll(host, *accept(host)) == 0
    assert f'"ssh_key": "{desk.folder}/id"' in desk.out


def test_a_key_with_a_passphrase_is_the_agents(host: Sshd, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    path = desk.folder / "id"
    key = paramiko.PKey.from_path(path)
    (desk.folder / "plain").write_bytes(path.read_bytes())
    (desk.folder / "plain").chmod(0o600)
    key.write_private_key_file(str(path), password="a passphrase")
    assert desk.enroll(host, *accept(host)) == 2
    assert "Traceback" not in desk.err
    assert "ssh-add" in desk.err

    socket = desk.folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        wait_for("the agent's socket", socket.exists, 10)
        subprocess.run(["ssh-add", "-q", str(desk.folder / "plain")], check=True, timeout=10)
        assert desk.enroll(host, password="wrong") == 0, desk.err
    finally:
        agent.terminate()
        agent.wait(timeout=10)


def test_authorized_keys_without_a_last_newline_keeps_both_keys(host: Sshd, desk: Desk) -> None:
    keys = host.home / ".ssh" / "authorized_keys"
    keys.parent.mkdir()
    keys.write_text("ssh-ed25519 AAAA somebody@else")
    assert desk.enroll(host, *accept(host)) == 0, desk.err
    assert keys.read_text().splitlines() == [
        "ssh-ed25519 AAAA somebody@else",
        (desk.folder / "id.pub").read_text().strip(),
    ]


def test_a_key_that_does_not_open_the_door_is_found_before_it_is_relied_on(host: Sshd, desk: Desk) -> None:
    host.accepts_keys = False
    assert desk.enroll(host, *accept(host), "--write") == 2
    assert "does not open" in desk.err
    assert "127.0.0.1" not in desk.inventory.read_text()


def test_the_pin_file_keeps_what_is_not_about_this_host(host: Sshd, desk: Desk) -> None:
    pins, name = desk.folder / "pins", f"[127.0.0.1]:{host.port}"
    other = paramiko.ECDSAKey.generate().get_base64()
    lines = [
        "# ours, since 2026",
        f"@cert-authority *.lan ecdsa-sha2-nistp256 {other}",
        f"@revoked * ecdsa-sha2-nistp256 {other}",
        f"spark-1,10.0.0.1 ecdsa-sha2-nistp256 {other}",
        "a line that nobody can read",
    ]
    shared = f"{name},spark-9 ecdsa-sha2-nistp256 {other}"
    pins.write_text("\n".join([*lines, shared]) + "\n")
    assert desk.enroll(host, *accept(host)) == 2, "another key is pinned for it"
    assert desk.enroll(host, *accept(host), "--renew") == 0, desk.err
    mine = f"{name} ecdsa-sha2-nistp256 {host.key.get_base64()}"
    assert pins.read_text().splitlines() == [*lines, shared.replace(f"{name},", ""), mine]


def test_a_revoked_key_is_never_accepted(host: Sshd, desk: Desk) -> None:
    revoked = f"@revoked [127.0.0.1]:{host.port} ecdsa-sha2-nistp256 {host.key.get_base64()}\n"
    (desk.folder / "pins").write_text(revoked)
    assert desk.enroll(host, *accept(host), "--renew") == 2
    assert "has revoked" in desk.err


def test_a_host_with_several_keys_is_known_by_the_one_that_is_pinned(host: Sshd, desk: Desk) -> None:
    host.more_keys.append(paramiko.RSAKey.generate(2048))
    rsa = host.more_keys[0]
    (desk.folder / "pins").write_text(f"[127.0.0.1]:{host.port} ssh-rsa {rsa.get_base64()}\n")
    assert desk.enroll(host) == 0, desk.err
    assert "as pinned" in desk.out


LINE = '("new", {"ssh_user": "nvidia", "ssh_port": 2222})'
TEXTS = {
    "empty list": "fleet = []\n",
    "one line": 'fleet = ["a.local"]  # why\n',
    "a tuple as the last element": 'fleet = [\n    ("a.local", {}),\n    ("b.local", {})\n]\n',
    "a comma of its own": 'fleet = [\n    ("a.local", {})\n    ,\n]\n',
    "a form feed and a separator in a comment": 'x = 1  # \x0c \u2028\nfleet = [\n    ("ä", {}),\n]\n',
    "an annotated list": 'fleet: list = ["a.local"]\n',
    "no newline at the end": 'fleet = ["a.local"]',
    "a list that is made": 'fleet = [f"spark-{n}" for n in range(3)]\n',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_an_inventory_gains_one_host_and_keeps_every_byte(host: Sshd, desk: Desk, text: str) -> None:
    desk.inventory.write_text(text)
    assert desk.enroll(host, *accept(host), "--write") == 0, desk.err
    new = desk.inventory.read_text()
    assert new.startswith(text)
    assert new.count("127.0.0.1") == 1
    assert [path.name for path in desk.folder.glob(".fleet*")] == []
    done = own_command("validate", str(desk.inventory))
    assert f"{new.count('local') + new.count('ä') + (3 if 'range' in new else 0) + 1} hosts" in done.stdout


def test_the_sample_takes_a_host() -> None:
    text = Path("inventory/prod.py").read_text()
    assert with_host(text, "fleet", LINE) == f"{text}\nfleet += [{LINE}]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('fleet = ["127.0.0.1"]\n', "already"),
        ('canary = ["a"]\n', "cannot be added to"),
        ('fleet = (["a"], {"soak_s": 1})\n', "cannot be added to"),
        ("fleet = [\n", "cannot be run"),
    ],
)
def test_what_cannot_be_added_is_refused_before_the_host_is_touched(
    host: Sshd, desk: Desk, text: str, says: str
) -> None:
    desk.inventory.write_text(text)
    assert desk.enroll(host, *accept(host), "--write") == 2
    assert says in desk.err
    assert not (host.home / ".ssh").exists()
    assert desk.inventory.read_text() == text
