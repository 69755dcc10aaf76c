"""Stand-ins that make a host look like a Spark: the GPU's tools, the toolkit's marks, DGX OS's release file."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab.config import FIXTURES, Host
from tests.lab.rootfs import GUEST_FILES

DRIVER = "580.178.04"
MODES = ("ok", "no-devices", "hang", "garbage", "unknown-error")


def install(host: Host, root: Path) -> None:
    programs = {
        "nvidia_smi.py": "bin/nvidia-smi",
        "nvidia-ctk": "bin/nvidia-ctk",
        "timedatectl": "local/bin/timedatectl",
    }
    if host.kind.gpu_injection == "hook":
        programs["nvidia-container-runtime-hook"] = "bin/nvidia-container-runtime-hook"
    else:
        (root / f"usr/lib/libcuda.so.{DRIVER}").write_text("Simulated by the sparkfleet lab.\n")
        (root / "etc/cdi").mkdir(parents=True, exist_ok=True)
        spec = (GUEST_FILES / "cdi-nvidia.yaml").read_text(encoding="utf-8")
        (root / "etc/cdi/nvidia.yaml").write_text(spec.replace("@DRIVER@", DRIVER))
    for source, program in programs.items():
        target = root / "usr" / program
        shutil.copy(GUEST_FILES / source, target)
        target.chmod(0o755)
    shutil.copy(FIXTURES / "gb10" / host.kind.dgx_release, root / "etc/dgx-release")
    (root / "etc/dgx-release").chmod(0o644)
