"""The node's program is the same bytes on every build, and runs with nothing but Python."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sparkfleet.node import nodeprogram


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


def tried(modules: Path, program: Path) -> Path:
    """The installation's own line, for a program that is not in its place yet."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    program.chmod(0o755)
    command = ["sh", "-ec", nodeprogram.trial(str(program), str(modules))]
    subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    return modules / nodeprogram.build()


def test_the_host_unpacks_and_compiles_it_and_that_runs_by_itself(tmp_path: Path, installed: Path) -> None:
    path = tried(tmp_path / "modules", installed)
    asked = "import sparknode.cli as cli, sparknode.activate.steps as steps; print(cli.__file__, steps.__cached__)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = [{str(path)!r}]; {asked}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    cached = f"{path}/sparknode/activate/__pycache__/steps.{sys.implementation.cache_tag}.pyc"
    assert done.stdout.split() == [f"{path}/sparknode/cli.py", cached]
    assert Path(cached).exists()
    assert [entry.name for entry in path.parent.iterdir()] == [nodeprogram.build()]


def test_the_program_looks_for_its_own_build(installed: Path) -> None:
    with zipfile.ZipFile(installed) as archive:
        assert f'"/usr/local/lib/sparknode/{nodeprogram.build()}"' in archive.read("__main__.py").decode()


def test_the_build_before_stays_for_an_activation_that_runs_it(tmp_path: Path, installed: Path) -> None:
    modules = tmp_path / "modules"
    for number, build in enumerate(("1" * 16, "2" * 16)):
        (modules / build / "sparknode").mkdir(parents=True)
        os.utime(modules / build, (number, number))
    # What earlier versions kept there.
    (modules / f"{'0' * 16}.cpython-312.zip").write_bytes(b"")
    os.utime(modules / f"{'0' * 16}.cpython-312.zip", (0, 0))

    for _ in range(2):
        path = tried(modules, installed)
        assert sorted(modules.iterdir()) == sorted([modules / ("2" * 16), path])


def test_a_program_that_does_not_run_here_takes_nobodys_place(tmp_path: Path, installed: Path) -> None:
    with zipfile.ZipFile(installed, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("sparknode/cli.py", "raise SystemExit(3)")
    with pytest.raises(subprocess.CalledProcessError):
        tried(tmp_path / "modules", installed)


@pytest.mark.parametrize(
    ("script", "code"),
    [("true", 0), ("false", 1), ("head -c 10 >/dev/null", 0), ("cat | head -c 10 >/dev/full && true", 1)],
)
def test_whoever_sends_is_never_cut_off_by_a_command_that_ends_early(script: str, code: int) -> None:
    process = subprocess.Popen(["sh", "-c", nodeprogram.draining(script)], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"x" * (1 << 20))
    process.stdin.close()
    assert process.wait(30) == code
