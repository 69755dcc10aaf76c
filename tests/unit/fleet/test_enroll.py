"""A new host against a real SSH server on loopback: keys, passwords, sudo, and the inventory's text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from sparkfleet.errors import SettingsError
from sparkfleet.inventory_file import with_host
from tests.plan.harness import own_command
from tests.unit.fleet.sshd import Sshd


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
    assert host.logins == ["password"]
    assert (host.home / ".ssh" / "authorized_keys").read_text() == (desk.folder / "id.pub").read_text()
    assert (host.home / ".ssh" / "authorized_keys").stat().st_mode & 0o077 == 0
    assert f"host key: ecdsa-sha2-nistp256 {host.key.fingerprint}" in said
    assert "machine: " in said
    assert "preflight: " in said
    assert "--limit 127.0.0.1" in said
    assert "secret" not in said
    text = desk.inventory.read_text()
    assert text.startswith(
        'canary = []\nfleet = [\n    ("spark-1", {}),  # the first one\n    ("127.0.0.1", {"ssh_user"'
    )
    assert f'"ssh_known_hosts_file": "{desk.folder}/pins"' in text

    assert desk.enroll(host, password="") == 0
    said = desk.out
    assert host.logins == ["password", "key"], "the second time needs no password and no question"
    assert "as pinned" in said
    assert (host.home / ".ssh" / "authorized_keys").read_text().count("ecdsa-sha2-nistp256") == 1


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
        (["--accept", "SHA256:another"], "secret", "do not go on before you know why"),
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


LINE = '("new", {"ssh_user": "nvidia", "ssh_port": 2222}),'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fleet = []\n", f"fleet = [\n    {LINE}\n]\n"),
        ('fleet = ["a"]  # why\n', f'fleet = ["a",\n    {LINE}\n]  # why\n'),
        ('fleet = [\n    ("ä", {}),\n]\n', f'fleet = [\n    ("ä", {{}}),\n    {LINE}\n]\n'),
        ('fleet = [\n  "a"  # last\n]\n', f'fleet = [\n  "a",  # last\n  {LINE}\n]\n'),
        ("x = 1\nfleet = [\n    # none yet\n]\ny = 2\n", f"x = 1\nfleet = [\n    # none yet\n    {LINE}\n]\ny = 2\n"),
    ],
)
def test_the_rest_of_the_inventory_stays_as_it_is(before: str, after: str) -> None:
    assert with_host(before, "fleet", "new", LINE) == after


def test_the_sample_takes_a_host() -> None:
    text = Path("inventory/prod.py").read_text()
    new = with_host(text, "fleet", "new", LINE)
    assert [line for line in new.splitlines() if line not in text.splitlines()] == [f"    {LINE}"]


@pytest.mark.parametrize(
    ("text", "says"),
    [('fleet = ["new"]\n', "is in the inventory already"), ("canary = []\n", "there is no list fleet")],
)
def test_what_cannot_be_added_is_refused(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        with_host(text, "fleet", "new", LINE)
