"""The file of pinned host keys, in OpenSSH's known_hosts format: only this host's lines change, and all else stays.

Its markers are honoured as sshd(8) describes them: what is `@revoked` is never accepted, and `@cert-authority` lines
are about certificates, which enrolling a host does not use.
"""

from __future__ import annotations

from pathlib import Path

import paramiko

SSH_PORT = 22
# An RSA key signs in newer ways than its type is called.
_SIGNED_AS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")}


class Pins:
    """The keys that are pinned, and those that are revoked, for one host."""

    def __init__(self, path: Path, address: str, port: int) -> None:
        self.name = address if port == SSH_PORT else f"[{address}]:{port}"
        self._path = path
        self._lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.keys = [key for line in self._lines if (key := self._key(line)) is not None]
        marked = (line.partition(" ") for line in self._lines if line.startswith("@revoked "))
        self.revoked = [key for _, _, rest in marked if (key := self._key(rest)) is not None]

    def preferred(self, offered: tuple[str, ...]) -> tuple[str, ...]:
        """Return the key types to ask for: those of the pinned keys first, as ssh does."""
        first = [kind for key in self.keys for kind in _SIGNED_AS.get(key.get_name(), (key.get_name(),))]
        return tuple(dict.fromkeys([*(kind for kind in first if kind in offered), *offered]))

    def replace(self, key: paramiko.PKey) -> None:
        """Pin this key for the host, and no other."""
        kept = [left for line in self._lines if (left := self._without_host(line)) is not None]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(f".{self._path.name}.new")
        new.write_text("\n".join([*kept, f"{self.name} {key.get_name()} {key.get_base64()}", ""]), encoding="utf-8")
        new.replace(self._path)

    def _without_host(self, line: str) -> str | None:
        """Return a line without this host, which may share it with others; None where nobody is left."""
        if self._key(line) is None:
            return line
        names, _, rest = line.partition(" ")
        others = [name for name in names.split(",") if not self._is_meant(name)]
        return f"{','.join(others)} {rest}" if others else None

    def _is_meant(self, name: str) -> bool:
        return name == self.name or (name.startswith("|1|") and paramiko.HostKeys.hash_host(self.name, name) == name)

    def _key(self, line: str) -> paramiko.PKey | None:
        """Return the line's key where it is one of this host's; a line that cannot be read belongs to nobody."""
        if not line.strip() or line.startswith(("#", "@")):
            return None
        try:
            entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
        except (paramiko.SSHException, ValueError, paramiko.hostkeys.InvalidHostKey):
            return None
        if entry is None or entry.key is None:
            return None
        return entry.key if any(map(self._is_meant, entry.hostnames)) else None
