"""The commands of docs/catalogue.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sparkfleet import ROOT

TEXT = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One working folder for all blocks: a later one reads what an earlier one wrote."""
    return tmp_path_factory.mktemp("docs")


def test_there_are_commands() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_commands_work(number: int, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = BLOCKS[number].replace("python -m", f"{sys.executable} -m")
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or ">" in script


def test_the_overlay_example_loads(tmp_path: Path) -> None:
    from sparkfleet.catalog.catalog import load

    example = re.search(r"^   ```yaml\n(.*?)^   ```", TEXT, re.DOTALL | re.MULTILINE)
    assert example is not None
    (tmp_path / "images.yaml").write_text(example[1])
    assert load((tmp_path,)).images["2026-12-01-v0.27.2"].engine_version == "0.27.2"
