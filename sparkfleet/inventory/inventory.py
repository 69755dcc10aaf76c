"""Reading an inventory without connecting to anything, resolved by pyinfra's own code."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkfleet import ROOT
from sparkfleet.errors import FleetError, SettingsError, nearest
from sparkfleet.inventory.entry import HostEntry
from sparkfleet.inventory.settings import Settings


def read_inventory(path: str, data: Sequence[str] = ()) -> list[HostEntry]:
    """Return the inventory's hosts in file order with their groups and data.

    :param data: KEY=VALUE texts that override, read as pyinfra reads its --data
    Raises SettingsError when there is no such file, or when it or the group data cannot be run.
    """
    if not (ROOT / path).is_file():
        present = ", ".join(str(file.relative_to(ROOT)) for file in sorted((ROOT / "inventory").glob("*.py")))
        found = f"{path} is a folder" if (ROOT / path).is_dir() else f"there is no inventory file {path}"
        raise SettingsError(found, f"one of {present}", "check the path")
    from pyinfra.api import Config, State
    from pyinfra.api.exceptions import PyinfraError
    from pyinfra.context import ctx_config, ctx_state
    from pyinfra_cli.inventory import make_inventory

    before = Path.cwd()
    os.chdir(ROOT)
    try:
        state = State()
        state.cwd = str(ROOT)
        ctx_state.set(state)
        ctx_config.set(Config())
        inventory = make_inventory(path, cwd=str(ROOT), override_data=overrides(data))
        state.init(inventory, Config())
        return [entry(host, _origins(host, path)) for host in inventory]
    except FleetError:
        raise
    # The file is a program of the operator's; pyinfra wraps what it raises while it runs, and nothing else.
    except (Exception, PyinfraError) as error:
        raise SettingsError(
            f"{path} or group_data/ cannot be run: {_reason(error)}",
            "Python that defines lists of hosts",
            "fix the line that is named; `python -m py_compile FILE` checks a file alone",
        ) from None
    finally:
        os.chdir(before)


def overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Return KEY=VALUE texts as pyinfra reads its --data. Raises SettingsError."""
    from pyinfra_cli.util import parse_cli_arg

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SettingsError(
                f"'{text}' is no KEY=VALUE", "a setting, as pyinfra's --data takes it", "e.g. soak_s=60"
            )
        found[key] = parse_cli_arg(value)
    return found


def _reason(error: BaseException) -> str:
    """Return the operator's own error with its place, out of what pyinfra wraps round it."""
    while isinstance(inner := getattr(error, "exception", None) or error.__cause__, Exception):
        error = inner
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "pyinfra" not in frame.filename]
    own = [frame for frame in frames if frame.filename.endswith(".py") and frame.filename != __file__]
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}: "
    else:
        where = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    return f"{where}{type(error).__name__}: {error}".split("\n")[0].replace(f"{ROOT}/", "")


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
