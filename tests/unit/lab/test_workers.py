"""A session of tests ends only the lab that it booted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.config import ROOT


@pytest.mark.parametrize("booted_by", [None, "1"])
def test_who_only_collects_tests_leaves_a_lab_alone(booted_by: str | None, tmp_path: Path) -> None:
    lab = tmp_path / ".lab"
    lab.mkdir()
    (lab / "state.json").write_text('{"engine": "sim", "hosts": []}')
    if booted_by:
        (lab / "booted-by").write_text(booted_by)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/lab/pairs", "tests/lab/crash"],
        cwd=ROOT,
        env={**os.environ, "SPARKFLEET_LAB_DIR": str(lab), "SPARKFLEET_LAB_NUMBER": "99"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert (lab / "state.json").exists()
