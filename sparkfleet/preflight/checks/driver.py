"""The driver: its version, what is installed of it, and what the next boot brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparkfleet.catalog.contract import version_key
from sparkfleet.preflight.checks.view import Check, Undecided, View, judged, named, older
from sparkfleet.preflight.findings import Values, book


def _version(view: View) -> str | None:
    """What nvidia-smi says, or else the kernel: both name the driver that is loaded."""
    return (view.gpu.driver_version if view.gpu else None) or view.driver


def _driver(view: View) -> Iterator[Values]:
    version, branch = _version(view), view.hardware.driver_branch
    if view.gpu and not version:
        raise Undecided("neither nvidia-smi nor /sys/module/nvidia names a driver version")
    for verdict in judged(version, view.catalog.driver_verdicts, view.kind):
        down = branch and version_key(str(version))[:1] > version_key(branch)[:1]
        yield {**verdict, "version": version, "branch": branch, "case": "down" if down else None}


def _image(view: View) -> list[Values]:
    line, version = view.line, _version(view)
    return [{"version": version}] if line and older(version, line.min_driver) else []


def _installed(view: View) -> list[Values]:
    others = [(name, version) for name, version in view.installed if view.driver and version != view.driver]
    return [{"package": name, "installed": version} for name, version in others[:1]]


def _configured(view: View) -> Iterator[Values]:
    broken = named(view.facts, ["nvidia-*", "libnvidia-*", "linux-modules-nvidia-*"])
    for state in sorted({row.state for row in broken} - {"installed"}):
        names = [row.name for row in broken if row.state == state]
        case = "again" if state == "half-installed" else None
        yield {"names": ", ".join(names), "packages": " ".join(names), "state": state, "case": case}


def _next_kernel(view: View) -> list[Values]:
    after, ready = view.facts.kernels.next, view.facts.kernels.with_nvidia
    # Where not even the running kernel's module was found, modules stand elsewhere, and nothing is known.
    torn = after and after not in ready and view.facts.host.kernel in ready
    return [{"has": ", ".join(ready)}] if torn else []


def _foreign(view: View) -> list[Values]:
    names = " ".join(row.name for row in named(view.facts, book().foreign_packages))
    return [{"names": names, "branch": view.hardware.driver_branch}] if names and view.hardware.driver_branch else []


def _toolchain(view: View) -> list[Values]:
    needs, gpu = view.line.cuda_toolkit if view.line else None, view.facts.gpu
    if needs and not gpu.cuda_version:
        said = f" (it prints «{gpu.cuda_said}»)" if gpu.cuda_said else ""
        raise Undecided(f"nvidia-smi -q names no CUDA version of the driver{said}; libcuda may be missing")
    return [{"needs": needs}] if needs and older(gpu.cuda_version, needs) else []


CHECKS: Mapping[str, Check] = {
    "driver.version": _driver,
    "driver.image": _image,
    "driver.loaded": lambda v: v.facts.gpu.gsp_version not in (None, v.driver),
    "driver.installed": _installed,
    "driver.configured": _configured,
    "driver.reboot": lambda v: v.facts.host.reboot_required,
    "driver.next_kernel": _next_kernel,
    "driver.foreign": _foreign,
    "cuda.toolchain": _toolchain,
}
