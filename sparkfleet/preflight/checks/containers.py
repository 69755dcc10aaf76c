"""Docker, and the ways in which it hands the GPU to a container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparkfleet.preflight.checks.view import Check, View, judged, limit, older
from sparkfleet.preflight.findings import Values


def _container(view: View) -> Iterator[Values]:
    device, found = view.release.container.gpu[-1], view.facts.injection
    # For `--gpus` Docker takes the hook, a runtime of this name, or CDI; many Sparks lack the runtime (forum 350646).
    ways = found.hook or found.cdi_devices or "nvidia" in view.facts.docker.runtimes
    case = "gpu" if not view.gpu_works else None if view.renews else "generate" if found.toolkit_version else "toolkit"
    if view.cdi and device not in found.cdi_devices:
        what, wanted = f"no CDI device {device}", f"{device} in /etc/cdi or /var/run/cdi"
        yield {"what": what, "wanted": wanted, "case": case}
    elif not view.cdi and not ways:
        what = "neither nvidia-container-runtime-hook nor a CDI device"
        yield {"what": what, "wanted": "the NVIDIA container toolkit", "case": case}


def _reload(view: View) -> list[Values]:
    """Containers whose GPU came by hook; what `--gpus` does is Docker's choice, and a runtime's alone is not known."""
    docker, ours = view.facts.docker, view.release.container.name
    by_cdi = not older(docker.server_version, limit("cdi_first_docker")) and any(
        device.startswith("nvidia.com/gpu=") for device in docker.cdi_devices
    )
    hooked = {"hook"} if by_cdi else {"hook", "flag"}
    hooked |= set() if docker.default_runtime == "nvidia" else {"runtime"}
    names = [one.name for one in docker.containers if one.gpu in hooked and one.name != ours]
    return [{"names": ", ".join(names), "first": names[0]}] if names else []


def _access(view: View) -> Iterator[Values]:
    unit, users = view.facts.unit("docker.service"), view.facts.docker.rootless_uids
    if not view.facts.docker.server_version:
        stopped = "stopped" if unit.load == "loaded" and unit.active != "active" else None
        case = {"not-found": "absent", "masked": "masked"}.get(str(unit.load), stopped)
        whose = f"; a rootless Docker of user {users[0]} runs, which can't run a service of the system" if users else ""
        yield {"case": case, "whose": whose}


def _engine(name: str) -> Check:
    """A row for what answers in Docker's place."""
    return lambda view: view.facts.docker.server_version and view.facts.docker.engine == name


def _unit(view: View) -> Iterator[Values]:
    """Docker answers, but not as the service that the engine's unit requires."""
    state, docker = view.facts.unit("docker.service").load, view.facts.docker
    if docker.server_version and docker.engine == "docker" and state in ("not-found", "masked"):
        yield {"case": "masked" if state == "masked" else None}


def _version(view: View) -> bool:
    docker = view.facts.docker
    return docker.engine != "podman" and older(docker.server_version, view.hardware.min_docker)


def _cdi_driver(view: View) -> Iterator[Values]:
    for spec in view.stale_specs:
        static = spec.path.startswith("/etc/cdi/")
        case = "reboot" if view.early(spec) else "gpu" if not view.gpu_works else None
        case = case or ("static" if static and view.renews else None if view.renews else "generate")
        severity = "fail" if view.cdi else "warn"
        yield {"path": spec.path, "spec": spec.driver_version, "severity": severity, "case": case}


def _cdi_duplicate(view: View) -> list[Values]:
    paths: dict[str, list[str]] = {}
    for spec in view.facts.injection.cdi_specs:
        for device in spec.devices:
            paths.setdefault(device, []).append(spec.path)
    return [
        {
            "device": device,
            "paths": " and ".join(paths[device]),
            "aside": " && ".join(f"sudo mv {spec.path} {spec.path}.stale" for spec in surplus),
        }
        for device, surplus in view.surplus_specs[:1]
    ]


def _cdi_docker(view: View) -> bool:
    docker = view.facts.docker
    return view.cdi and not docker.cdi_dirs and older(docker.server_version, limit("cdi_docker"))


def _images(view: View) -> Iterator[Values]:
    lost = view.facts.docker.lost
    if lost:
        there = [one.release for one in lost if one.elsewhere]
        yield {
            "names": ", ".join(one.release for one in lost),
            "more": f"; its other store still has {', '.join(there)}" if there else "",
        }


CHECKS: Mapping[str, Check] = {
    "gpu.container": _container,
    "reload.safe": _reload,
    "docker.access": _access,
    "docker.podman": _engine("podman"),
    "docker.snap": _engine("snap"),
    "docker.rootless": _engine("rootless"),
    "docker.unit": _unit,
    "docker.images": _images,
    "docker.version": _version,
    "docker.cdi": _cdi_docker,
    "docker.group": lambda v: not v.facts.docker.group,
    "cdi.driver": _cdi_driver,
    "cdi.duplicate": _cdi_duplicate,
    "cdi.refresh": lambda v: (
        [{"case": "absent" if v.refresh_state == "not installed" else None}] if v.refresh_state else []
    ),
    "toolkit.version": lambda v: judged(v.facts.injection.toolkit_version, v.catalog.toolkit_verdicts, v.kind),
}
