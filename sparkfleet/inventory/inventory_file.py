"""Adding a host to an inventory file: one statement at its end, tried before it replaces anything.

An inventory is a program, so nothing in it is taken apart: what is there stays byte for byte, and the new file is run.
"""

from __future__ import annotations

from sparkfleet import ROOT
from sparkfleet.errors import FleetError, SettingsError
from sparkfleet.inventory.entry import HostEntry
from sparkfleet.inventory.inventory import read_inventory


def with_host(text: str, group: str, line: str) -> str:
    """Return the file's text with a statement at its end that adds the host to the group's list."""
    end = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{end}\n{group} += [{line}]\n"


def check_group(entries: list[HostEntry], inventory: str, group: str, host: str) -> None:
    """Refuse a host that is there already, and a group that no host is in and the file does not define."""
    if any(entry.name == host for entry in entries):
        raise SettingsError(f"{host} is in {inventory} already", "a host that is not", "leave out --write")
    text = (ROOT / inventory).read_text(encoding="utf-8")
    groups = sorted({name for entry in entries for name in entry.groups} - {"all"})
    if group not in groups and f"{group} = [" not in text:
        known = ", ".join(groups) or "none yet: write `fleet = []` into it"
        raise SettingsError(f"{inventory} has no group {group}", f"one of {known}", "give --group")


class Edit:
    """A new text of an inventory, which has been run and gives the same hosts and one more."""

    def __init__(self, inventory: str, group: str, host: str, line: str) -> None:
        self._path = ROOT / inventory
        # Beside the old one, since an inventory may look for its neighbours.
        self._new = self._path.with_name(f".{self._path.stem}-new.py")
        before = self._hosts(read_inventory(inventory))
        self._new.write_text(with_host(self._path.read_text(encoding="utf-8"), group, line), encoding="utf-8")
        try:
            entries = read_inventory(str(self._new))
            after = self._hosts(entries)
            is_added = any(entry.name == host and group in entry.groups for entry in entries)
            if not is_added or after.pop(host, None) is None or after != before:
                raise SettingsError("it would not give the same hosts and one more")
        except FleetError as error:
            self.drop()
            raise SettingsError(
                f"{inventory} cannot be added to: {error.found}",
                f"a list named {group} at the top of the file, which `{group} += […]` can add to",
                f"leave out --write, and write the line that is printed into {inventory} by hand",
            ) from None

    def apply(self) -> None:
        self._new.replace(self._path)

    def drop(self) -> None:
        self._new.unlink(missing_ok=True)

    def _hosts(self, entries: list[HostEntry]) -> dict[str, set[str]]:
        """Each host's groups, but for the ones that pyinfra names after the file."""
        names = {self._path.name.rsplit(".", 1)[0], self._new.name.rsplit(".", 1)[0]}
        return {entry.name: set(entry.groups) - names for entry in entries}
