"""The download tool's environment on a seed: made once, as pinned, and said clearly where it can't be made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sparknode.base.paths import Paths
from sparknode.base.process import Completed
from sparknode.base.system import Host, RealSystem
from sparknode.errors import Failed
from sparknode.models import fetch

PINS = "anyio==4.16.0 --hash=sha256:00\n"


class Machine(RealSystem):
    """Programs that only remember how they were called; `broken` is a word of the command that fails."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.broken: str | None = None

    def run(self, argv: Sequence[str], timeout: float) -> Completed:
        self.commands.append(list(argv))
        assert 0 < timeout <= fetch.TOOL_S
        return Completed(tuple(argv), 1 if self.broken in argv else 0, "", f"{self.broken} failed")

    def named(self, word: str) -> list[list[str]]:
        return [command for command in self.commands if word in command]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def host(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    return Host(Paths(tmp_path), machine)


def python(host: Host, pins: str = PINS, index: str | None = None) -> Path:
    return fetch.tool_python(host, pins, index, lambda _: None)


def test_it_is_made_once_with_pins_and_hashes_alone(host: Host, machine: Machine) -> None:
    made = python(host)

    (install,) = machine.named("install")
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(install)
    assert Path(install[install.index("--requirement") + 1]).read_text() == PINS
    assert "--index-url" not in install
    machine.commands.clear()
    assert python(host) == made
    assert machine.commands == [[str(made), "-c", "import huggingface_hub.file_download"]]


def test_other_pins_and_a_broken_interpreter_make_it_anew_and_one_is_left(host: Host, machine: Machine) -> None:
    old = python(host)
    new = python(host, "anyio==4.17.0 --hash=sha256:11\n")
    assert new != old
    assert {path.name.split(".")[0] for path in new.parents[2].iterdir()} == {new.parents[1].name}
    machine.commands.clear()
    machine.broken = "import huggingface_hub.file_download"
    python(host, "anyio==4.17.0 --hash=sha256:11\n")
    assert len(machine.named("install")) == 1


@pytest.mark.parametrize("word", ["venv", "install", "sync"])
def test_a_step_that_fails_is_said_and_the_next_time_it_begins_again(host: Host, machine: Machine, word: str) -> None:
    machine.broken = word
    with pytest.raises(Failed, match=rf"{word} failed; apt install python3-venv \(or uv\), set tool_index"):
        python(host)
    assert not (host.paths.data / "tools").exists()
    machine.broken, machine.commands = None, []
    python(host)
    assert [len(machine.named(step)) for step in ("venv", "install", "sync")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("index", "options"),
    [
        ("http://10.0.0.5:8080/simple", ["http://10.0.0.5:8080/simple", "--trusted-host", "10.0.0.5:8080"]),
        ("https://packages.example/simple", ["https://packages.example/simple"]),
    ],
)
def test_packages_come_from_the_index_that_was_set(
    host: Host, machine: Machine, index: str, options: list[str]
) -> None:
    python(host, index=index)
    (install,) = machine.named("install")
    assert install[install.index("--index-url") + 1 :] == options


def test_uv_makes_it_where_it_is_installed_and_brings_no_python(
    host: Host, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: "/usr/bin/uv")
    made = python(host)
    assert machine.commands[0] == ["/usr/bin/uv", "venv", "--quiet", "--no-python-downloads", str(made.parents[1])]
    assert machine.commands[1][:3] == ["/usr/bin/uv", "pip", "install"]
    assert machine.commands[1][-2:] == ["--python", str(made)]
