"""The node's program is the same bytes on every build, and runs with nothing but Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sparkfleet import nodeprogram


def test_the_same_sources_give_the_same_bytes() -> None:
    first = nodeprogram.program()
    nodeprogram.program.cache_clear()
    assert nodeprogram.program() == first


def test_it_runs_isolated_from_every_installed_package(tmp_path: Path) -> None:
    path = tmp_path / "sparknode"
    path.write_bytes(nodeprogram.program())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(path), "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"release": 1' in done.stdout
