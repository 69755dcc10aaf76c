"""Repairs that are safe on a serving host: pure, from a probe to the commands that are still missing.

Each is done only for hosts whose settings name it. Nothing here touches driver, firmware or kernel, or reboots; units
are changed without a daemon-reload, which could take the GPU from running containers (nvidia-container-toolkit#48).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sparkfleet.preflight.checks.view import RENEWED, SLEEP_TARGETS, View, named
from sparkfleet.preflight.findings import book

Command = tuple[str, ...]
REFRESH = ("nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service")
GENERATE = ("nvidia-ctk", "cdi", "generate")
# Where no unit renews it: /var/run is empty after a boot.
GENERATED = "/etc/cdi/nvidia.yaml"
EARLYOOM_FILE = "/etc/default/earlyoom"
EARLYOOM_UNIT = "/etc/systemd/system/earlyoom.service.d/sparkfleet.conf"


def apt_holds(view: View, _user: str) -> list[Command]:
    """Hold the driver back from `apt upgrade`, which would tear it from its kernel; the Dashboard updates both."""
    free = [row.name for row in named(view.facts, book().driver_packages) if not row.held]
    return [("apt-mark", "hold", *free)] if free else []


def cdi_refresh(view: View, _user: str) -> list[Command]:
    if view.refresh_state in (None, "not installed"):
        return []
    return [("systemctl", "enable", "--no-reload", *REFRESH), ("systemctl", "start", *REFRESH)]


def cdi_spec(view: View, _user: str) -> list[Command]:
    """Write the specification anew for the loaded driver; a copy that nobody renews steps aside.

    Not before the reboot that loads another driver, and not for a GPU that does not work: nvidia-ctk would fail.
    """
    specs, stale = view.facts.injection.cdi_specs, view.stale_specs
    if not view.gpu_works or any(map(view.early, stale)):
        return []
    surplus = [spec for _, several in view.surplus_specs for spec in several]
    renewed = [spec for spec in specs if view.renews and spec.path == RENEWED]
    aside = [spec for spec in specs if (spec in stale or spec in surplus) and spec not in renewed]
    good = [spec for spec in specs if spec not in [*stale, *aside] and "nvidia.com/gpu=all" in spec.devices]
    commands: list[Command] = [("mv", spec.path, f"{spec.path}.stale") for spec in aside]
    if not good and (stale or view.cdi):
        commands += [("systemctl", "restart", REFRESH[1]) if view.renews else (*GENERATE, f"--output={GENERATED}")]
    return commands


def docker_group(view: View, user: str) -> list[Command]:
    wanted = user not in ("", "root") and user not in view.facts.docker.group
    return [("usermod", "--append", "--groups", "docker", user)] if wanted else []


def earlyoom(view: View, _user: str) -> list[Command]:
    """The commands around its two files; installing it reloads systemd, so not beside an engine injected by hook."""
    active = view.facts.unit("earlyoom.service").active == "active"
    if (active and view.facts.earlyoom == book().earlyoom.arguments) or (view.serves() and not view.cdi):
        return []
    install = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends")
    enable, restart = ("systemctl", "enable", "--no-reload", "earlyoom"), ("systemctl", "restart", "earlyoom")
    return [*([] if named(view.facts, ["earlyoom"]) else [(*install, "earlyoom")]), enable, restart]


def sleep_targets(view: View, _user: str) -> list[Command]:
    return [("systemctl", "mask", "--no-reload", *SLEEP_TARGETS)] if view.unmasked else []


# Dropping caches belongs before each start of the engine, so it is part of the release's unit
# (`sparkfleet.release.unit`).
REPAIRS: Mapping[str, Callable[[View, str], list[Command]]] = {
    repair.__name__: repair for repair in (apt_holds, cdi_refresh, cdi_spec, docker_group, earlyoom, sleep_targets)
}


def files(name: str) -> dict[str, str]:
    """Return the files that a repair writes, by path."""
    if name != "earlyoom":
        return {}
    settings: Any = book().earlyoom
    return {
        EARLYOOM_FILE: f'# Written by sparkfleet.\nEARLYOOM_ARGS="{settings.arguments}"\n',
        EARLYOOM_UNIT: f"# Written by sparkfleet.\n[Service]\nCapabilityBoundingSet={settings.capabilities}\n",
    }
