"""An SSH server on loopback whose commands really run, in a home folder of its own and with a sudo that can be set."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import paramiko
from paramiko import common

SUDO = """#!/bin/sh
# A sudo of its own folder: MODE is nopasswd, password or none; a drop-in makes password into nopasswd.
mode=$(cat {home}/sudo-mode)
[ -f {home}/sudoers.d/sparkfleet ] && [ "$mode" = password ] && mode=nopasswd
case "$1" in
  -n) shift; [ "$mode" = nopasswd ] || {{ echo "sudo: a password is required" >&2; exit 1; }} ;;
  -S) shift; shift; shift; read -r given
      [ "$mode" != none ] && [ "$given" = secret ] || {{ echo "not in the sudoers file" >&2; exit 1; }} ;;
esac
exec "$@"
"""


class Sshd(paramiko.ServerInterface):
    """One host: user `nvidia` with the password `secret`, and whoever's key stands in authorized_keys."""

    def __init__(self, home: Path, sudo: str = "nopasswd") -> None:
        self.home = home
        self.key = paramiko.ECDSAKey.generate()
        # A host has keys of several kinds, and may refuse whoever comes with one.
        self.more_keys: list[paramiko.PKey] = []
        self.accepts_keys = True
        self.logins: list[str] = []
        # How long a login takes: on a loaded host, seconds.
        self.login_s = 0.0
        (home / "bin").mkdir(parents=True)
        (home / "sudoers.d").mkdir()
        (home / "sudo-mode").write_text(sudo)
        for name, text in (("sudo", SUDO.format(home=home)), ("visudo", "#!/bin/sh\ngrep -q NOPASSWD $2\n")):
            (home / "bin" / name).write_text(text)
            (home / "bin" / name).chmod(0o755)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._transports: list[paramiko.Transport] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        # A blocked accept() would still take one more connection after close().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self._transports:
            transport.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            for key in (self.key, *self.more_keys):
                transport.add_server_key(key)
            transport.start_server(server=self, event=threading.Event())
            self._transports.append(transport)

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "publickey,password"

    def check_auth_password(self, username: str, password: str) -> int:
        return self._answer("password", (username, password) == ("nvidia", "secret"))

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if not self.accepts_keys:
            return common.AUTH_FAILED
        known = self.home / ".ssh" / "authorized_keys"
        return self._answer("key", username == "nvidia" and known.exists() and key.get_base64() in known.read_text())

    def _answer(self, way: str, good: bool) -> int:
        time.sleep(self.login_s)
        if good:
            self.logins.append(way)
        return common.AUTH_SUCCESSFUL if good else common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._execute, args=(channel, command.decode()), daemon=True).start()
        return True

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        environment = {**os.environ, "HOME": str(self.home), "PATH": f"{self.home}/bin:{os.environ['PATH']}"}
        command = command.replace("/etc/sudoers.d", str(self.home / "sudoers.d"))
        pipe = subprocess.PIPE
        process = subprocess.Popen(["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        # As sshd does it: what the command leaves of its input is nobody's.
        threading.Thread(target=self._feed, args=(channel, process), daemon=True).start()
        assert process.stdout is not None
        assert process.stderr is not None
        output, said = process.stdout.read(), process.stderr.read()
        with suppress(OSError):  # a client that has seen enough hangs up
            channel.sendall(output)
            channel.sendall_stderr(said)
            channel.send_exit_status(process.wait(60))
        channel.close()

    @staticmethod
    def _feed(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with suppress(OSError), process.stdin as given:
            while chunk := channel.recv(65536):
                given.write(chunk)
                given.flush()
