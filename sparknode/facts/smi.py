"""Pure readers of what nvidia-smi answers about GPUs; like those of `parse`, none of them raises."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparknode.base.parse import number
from sparknode.facts.facts import Device

# A Device's, in its order, but for the fault.
GPU_FIELDS = (
    "name,compute_cap,driver_version,temperature.gpu,power.draw,clocks.sm,utilization.gpu,memory.total,memory.free"
)
# What the kernel says of a GPU that fails (NVIDIA, Xid errors), and of a module that Secure Boot keeps out.
KERNEL_LINES = "NVRM: Xid|NVRM:.*(fallen off|failed)|Loading of .*is rejected|unsigned module loading is restricted"
_STAMP = re.compile(r"^\[[ \d.]+\]\s*")
# NVML's words for a figure that this GPU or this login does not have. Whatever else stands in place of a figure, as
# «[GPU is lost]», «[GPU requires reset]», «[Unknown Error]» or «ERR!», is a fault of the GPU (nvml.h, nvmlErrorString).
_ABSENT = {
    *("", "-", "n/a", "na", "none", "not supported", "not available", "not applicable", "not found", "no data"),
    *("function not found", "insufficient permissions", "requested functionality has been deprecated"),
}
_FAULT = re.compile(
    r"\blost\b|reset required|requires? reset|unknown error|\berr!|fallen off|inaccessible|requires? reboot", re.I
)


def _words(cell: str) -> str:
    return cell.strip().strip("[]").strip()


def _told(cell: str) -> str | None:
    """A cell as text, or None where it names an absence or a fault."""
    words = _words(cell)
    return None if words.lower() in _ABSENT or _wrong(cell, figure=False) else words


def _wrong(cell: str, *, figure: bool) -> str | None:
    """The fault that stands in a cell, if one does."""
    words, bracketed = _words(cell), cell.strip().startswith("[")
    odd = bracketed or bool(_FAULT.search(words)) or (figure and number(words) is None)
    return words if odd and words.lower() not in _ABSENT else None


def gpus(stdout: str, rc: int | None) -> tuple[tuple[Device, ...], str | None]:
    """`nvidia-smi --query-gpu=GPU_FIELDS --format=csv,noheader`: the GPUs, and what else was said.

    A GPU with a fault has the driver's words for it under `fault`. «No devices were found» comes with exit code 6, and
    on some drivers with 0, so the text decides as well; a damaged infoROM (14) and a GPU that was lost (15) may come
    with rows. A GB10 has no figures of memory, which is None. A shorter list of fields, as other tools ask for, is
    taken too.
    """
    devices: list[Device] = []
    others: list[str] = []
    for line in stdout.splitlines():
        cells = line.rsplit(",", 8) if line.count(",") >= 8 else line.split(",")
        if len(cells) not in {3, 9} or not (cells[0].strip() and cells[1].strip() and cells[2].strip()):
            others.append(line)
            continue
        faults = [_wrong(cell, figure=False) for cell in cells[:3]] + [_wrong(cell, figure=True) for cell in cells[3:]]
        devices.append(
            Device(
                _told(cells[0]) or "a GPU without a name",
                _told(cells[1]),
                _told(cells[2]),
                next(filter(None, faults), None),
                *map(number, cells[3:]),
            )
        )
    said = " ".join(" ".join(others).split())[:300]
    if not said and (rc != 0 or not devices):
        said = f"nvidia-smi ended with {rc}" + ("" if devices else " and named no GPU")
    return tuple(devices), said or None


@dataclass(frozen=True)
class Details:
    cuda_version: str | None
    cuda_said: str | None
    gsp_version: str | None
    recovery: str | None


def details(text: str) -> Details:
    """`nvidia-smi -q`: CUDA's version, the firmware that the GPU runs, and what it needs to recover from a fault.

    From driver 610 on lines carry a remark behind the figure, and CUDA UMD Version is the one that stays. `cuda_said`
    is what stands there instead of a version, such as «Not Found» where libcuda is missing.
    """
    cuda = _line(text, "CUDA UMD Version") or _line(text, "CUDA Version")
    action = _line(text, "GPU Recovery Action")
    return Details(
        cuda_version=_version(cuda),
        cuda_said=cuda if cuda and not _version(cuda) else None,
        gsp_version=_version(_line(text, "GSP Firmware Version")),
        recovery=action if action and action.lower() not in _ABSENT else None,
    )


def _line(text: str, key: str) -> str | None:
    match = re.search(rf"^[ \t]*{key}[ \t]*:[ \t]*(\S[^\n]{{0,200}})?$", text, re.MULTILINE)
    return match[1].strip() if match and match[1] else None


def _version(words: str | None) -> str | None:
    match = re.match(r"\d[\w.]*(?=$|\s)", words or "", re.ASCII)
    return match[0] if match else None


def kernel_lines(text: str) -> list[str]:
    """The lines of the kernel's log that KERNEL_LINES finds, without their time."""
    return [_STAMP.sub("", line).strip()[:200] for line in text.splitlines() if line.strip()]


def library(text: str | None) -> str | None:
    """The version of the driver's libraries, which NVML names where it is not the kernel module's."""
    match = re.search(r"NVML library version:\s*(\d+(?:\.\d+)+)", text or "")
    return match[1] if match else None
