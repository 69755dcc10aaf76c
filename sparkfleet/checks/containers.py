"""Docker, and the ways in which it hands the GPU to a container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparkfleet.checks.view import Check, View, judged, limit, older
from sparkfleet.findings import Values


def _container(view: View) -> Iterator[Values]:
    device, found = view.release["container"]["gpu"][-1], view["injection"]
    # For `--gpus` Docker takes the hook, a runtime of this name, or CDI; many Sparks lack the runtime (forum 350646).
    ways = found["hook"] or found["cdi_devices"] or "nvidia" in view["docker"]["runtimes"]
    if view.cdi and device not in found["cdi_devices"]:
        yield {"what": f"no CDI device {device}", "wanted": f"{device} in /etc/cdi or /var/run/cdi"}
    elif not view.cdi and not ways:
        what = "neither nvidia-container-runtime-hook nor a CDI device"
        yield {"what": what, "wanted": "the NVIDIA container toolkit"}


def _reload(view: View) -> list[Values]:
    ours, running = view.release["container"]["name"], view["docker"]["containers"]
    names = ", ".join(one["name"] for one in running if one["gpu"] == "hook" and one["name"] != ours)
    return [{"names": names}] if names else []


def _cdi_driver(view: View) -> Iterator[Values]:
    for spec in view.stale_specs:
        yield {"path": spec["path"], "spec": spec["driver_version"], "severity": "fail" if view.cdi else "warn"}


def _cdi_duplicate(view: View) -> list[Values]:
    paths: dict[str, list[str]] = {}
    for spec in view["injection"]["cdi_specs"]:
        for device in spec["devices"]:
            paths.setdefault(device, []).append(spec["path"])
    twice = [(device, " and ".join(several)) for device, several in paths.items() if len(several) > 1]
    return [{"device": device, "paths": several} for device, several in twice[:1]]


CHECKS: Mapping[str, Check] = {
    "gpu.container": _container,
    "reload.safe": _reload,
    "docker.access": lambda v: not v["docker"]["server_version"],
    "docker.version": lambda v: older(v["docker"]["server_version"], v.hardware.min_docker),
    "docker.cdi": lambda v: (
        v.cdi and not v["docker"]["cdi_dirs"] and older(v["docker"]["server_version"], limit("cdi_docker"))
    ),
    "docker.snap": lambda v: (v["docker"]["root_dir"] or "").startswith("/var/snap/"),
    "docker.group": lambda v: not v["docker"]["group"],
    "cdi.driver": _cdi_driver,
    "cdi.duplicate": _cdi_duplicate,
    "cdi.refresh": lambda v: bool(v.refresh_state),
    "toolkit.version": lambda v: judged(v["injection"]["toolkit_version"], v.catalog.toolkit_verdicts),
}
