"""Reading an inventory without connecting to anything, resolved by pyinfra's own code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparkfleet import ROOT
from sparkfleet.errors import SettingsError, nearest
from sparkfleet.fleet import HostEntry
from sparkfleet.settings import Settings


def read_inventory(path: str, data: dict[str, Any]) -> list[HostEntry]:
    """Return the inventory's hosts in file order with their groups and data; `data` overrides, as --data does.

    Raises SettingsError when there is no such file.
    """
    if not (ROOT / path).exists():
        present = ", ".join(str(file.relative_to(ROOT)) for file in sorted((ROOT / "inventory").glob("*.py")))
        raise SettingsError(f"there is no inventory file {path}", f"one of {present}", "check the path")
    from pyinfra.api import Config, State
    from pyinfra.context import ctx_config, ctx_state
    from pyinfra_cli.inventory import make_inventory

    before = Path.cwd()
    os.chdir(ROOT)
    try:
        state = State()
        state.cwd = str(ROOT)
        ctx_state.set(state)
        ctx_config.set(Config())
        inventory = make_inventory(path, cwd=str(ROOT), override_data=data)
        state.init(inventory, Config())
        return [entry(host, _origins(host, path)) for host in inventory]
    finally:
        os.chdir(before)


def entry(host: Any, origins: Mapping[str, str] | None = None) -> HostEntry:
    """Return what the inventory says of one of pyinfra's hosts."""
    data = host.data.dict()
    address = f"{data.get('ssh_hostname') or host.name}:{data.get('ssh_port') or 22}"
    return HostEntry(host.name, address, tuple(host.groups), data, origins or {})


def _origins(host: Any, path: str) -> dict[str, str]:
    """Return who set each setting, in the order in which pyinfra lets one win over another."""
    found = dict.fromkeys(Settings.model_fields, "default")
    found |= dict.fromkeys(host.inventory.get_data(), "group_data/all.py")
    for group in host.groups:
        file = ROOT / "group_data" / f"{group}.py"
        place = f"group_data/{group}.py" if file.exists() else f"group {group} in {path}"
        found |= dict.fromkeys(host.inventory.get_group_data(group), place)
    found |= dict.fromkeys(host.inventory.get_host_data(host.name), f"the host in {path}")
    return found | dict.fromkeys(host.inventory.get_override_data(), "--data")


def find_host(entries: list[HostEntry], name: str) -> HostEntry:
    """Return the host's entry; raises SettingsError with the known names."""
    for entry in entries:
        if entry.name == name:
            return entry
    names = [entry.name for entry in entries]
    raise SettingsError(f"no host {name} in the inventory{nearest(name, names)}", f"one of {', '.join(names)}")
