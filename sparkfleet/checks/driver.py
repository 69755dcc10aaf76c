"""The driver: its version, what is installed of it, and what the next boot brings."""

from __future__ import annotations

from collections.abc import Mapping

from sparkfleet.checks.view import Check, View, judged, named, older
from sparkfleet.findings import Values, book


def _driver(view: View) -> list[Values]:
    if view.gpu and not view.gpu["driver_version"]:
        raise ValueError("nvidia-smi names no driver version")
    return judged(view.gpu.get("driver_version"), view.catalog.driver_verdicts)


def _installed(view: View) -> list[Values]:
    found = {
        row["name"]: row["version"].split(":")[-1].split("-")[0] for row in named(view.node, ["nvidia-driver-[0-9]*"])
    }
    others = [(name, version) for name, version in found.items() if view.driver and version != view.driver]
    return [{"package": name, "installed": version} for name, version in others[:1]]


def _next_kernel(view: View) -> list[Values]:
    after, ready = view["kernels"]["next"], view["kernels"]["with_nvidia"]
    # Where not even the running kernel's module was found, modules stand elsewhere, and nothing is known.
    torn = after and after not in ready and view["host"]["kernel"] in ready
    return [{"has": ", ".join(ready)}] if torn else []


def _foreign(view: View) -> list[Values]:
    names = " ".join(row["name"] for row in named(view.node, book().foreign_packages))
    return [{"names": names}] if names and view.hardware.unified_memory else []


CHECKS: Mapping[str, Check] = {
    "driver.version": _driver,
    "driver.image": lambda v: v.line and older(v.gpu.get("driver_version"), v.line.min_driver),
    "driver.loaded": lambda v: v["gpu"]["gsp_version"] not in (None, v["gpu"]["module_version"] or v.driver),
    "driver.installed": _installed,
    "driver.reboot": lambda v: v["host"]["reboot_required"],
    "driver.next_kernel": _next_kernel,
    "driver.foreign": _foreign,
    "cuda.toolchain": lambda v: v.line and v.line.cuda_toolkit and older(v["gpu"]["cuda_version"], v.line.cuda_toolkit),
}
