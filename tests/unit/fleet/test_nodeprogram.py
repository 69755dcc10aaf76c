"""The node's program is the same bytes on every build, and runs with nothing but Python."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sparkfleet import nodeprogram


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    path = tmp_path / "sparknode"
    path.write_bytes(nodeprogram.program())
    return path


def test_the_same_sources_give_the_same_bytes() -> None:
    first = nodeprogram.program()
    nodeprogram.program.cache_clear()
    assert nodeprogram.program() == first


def test_it_runs_isolated_from_every_installed_package(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(installed), "--version"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"release": 1' in done.stdout


def compiled(root: Path, program: Path, build: str) -> Path:
    command = [sys.executable, str(program), "--root", str(root), "compile", build]
    subprocess.run(command, capture_output=True, timeout=30, check=True)
    return root / f"usr/local/lib/sparknode/{build}.{sys.implementation.cache_tag}.zip"


def test_the_host_compiles_it_and_the_compiled_form_runs_by_itself(tmp_path: Path, installed: Path) -> None:
    path = compiled(tmp_path, installed, nodeprogram.build())
    asked = "import sparknode.cli as cli, sparknode.steps as steps; print(cli.__file__, steps.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = [{str(path)!r}]; {asked}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == [f"{path}/sparknode/cli.pyc", f"{path}/sparknode/steps.pyc"]


def test_the_program_looks_for_the_form_of_its_own_build(installed: Path) -> None:
    with zipfile.ZipFile(installed) as archive:
        assert f"/usr/local/lib/sparknode/{nodeprogram.build()}.{{" in archive.read("__main__.py").decode()


def test_the_build_before_stays_for_an_activation_that_runs_it(tmp_path: Path, installed: Path) -> None:
    paths = []
    for number, build in enumerate(("1" * 16, "2" * 16, "3" * 16)):
        paths.append(compiled(tmp_path, installed, build))
        os.utime(paths[-1], (number, number))
    assert sorted(paths[0].parent.iterdir()) == paths[1:]
    compiled(tmp_path, installed, "3" * 16)
    assert sorted(paths[0].parent.iterdir()) == paths[1:]
