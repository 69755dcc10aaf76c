"""The edges that touch the real machine: programs, the wire, files, the lock, the command line."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipapp
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import sparknode
from sparknode import cli
from sparknode.base import files, http, locks, process
from sparknode.base.paths import Paths

PACKAGE = Path(sparknode.__file__).parent


def test_only_the_standard_library_is_imported() -> None:
    """But for the download tool, which has an environment of its own, and asks for its library when it runs there."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        for node in tree.body if path.name == "hub.py" else ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                assert top == "sparknode" or top in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_a_program_is_run_with_its_output_apart() -> None:
    done = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], 10.0)

    assert (done.rc, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert done.why == "`sh -c echo out; echo err >&2; exit 3` ended with 3: err"


def test_a_program_does_not_tell_systemd_that_its_parent_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    assert "NOTIFY_SOCKET" not in process.run(["env"], 10.0).stdout


def test_a_worker_with_nothing_left_to_do_is_ready_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service of this type that ends without the word has failed for systemd, which then starts it again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert cli.main(["--root", str(tmp_path), "work"]) == 0
        assert manager.recv(100) == b"READY=1"


def test_a_program_that_hangs_ends_with_its_children() -> None:
    started = time.monotonic()

    done = process.run(["sh", "-c", "sleep 60 & sleep 60"], 0.2)

    assert done.timed_out
    assert time.monotonic() - started < 5.0


def test_a_program_that_is_missing_is_an_answer() -> None:
    done = process.run(["no-such-program"], 1.0)

    assert done.missing
    assert done.why == "`no-such-program` is not installed here, or may not be run"


def test_bytes_that_are_no_text_are_an_answer() -> None:
    assert process.run(["printf", "\\377"], 5.0).stdout == "\ufffd"


def test_streaming_hands_over_lines_and_keeps_the_last() -> None:
    lines: list[str] = []

    done = process.stream(["sh", "-c", "echo one; echo two >&2; exit 1"], 10.0, lines.append)

    assert sorted(lines) == ["one", "two"]
    assert (done.rc, done.why) == (1, "`sh -c echo one; echo two >&2; exit 1` ended with 1: two")


def test_streaming_has_an_end() -> None:
    done = process.stream(["sh", "-c", "echo one; sleep 60"], 0.3, lambda _: None)

    assert done.timed_out


@contextmanager
def server(answer: bytes, *, drip: float | None = None) -> Iterator[int]:
    """One connection that gets these bytes; with `drip`, one at a time and never an end."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(answer)
                while drip and not done.wait(drip):
                    connection.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        done.set()
        thread.join(5)
        listener.close()


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", 503, b""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"", None, b""),
        (b"SSH-2.0-OpenSSH\r\n", None, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", None, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None, b""),
    ],
)
def test_any_answer_is_an_answer(raw: bytes, status: int | None, body: bytes) -> None:
    with server(raw) as port:
        found = http.send(http.Request(port, "GET", "/", 5.0))

    assert (found.status, found.body) == (status, body)
    assert (found.error is None) == (status is not None)


def test_an_answer_that_never_ends_is_given_up_in_time() -> None:
    started = time.monotonic()

    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", drip=0.05) as port:
        found = http.send(http.Request(port, "GET", "/", 0.5))

    assert found.status is None
    assert time.monotonic() - started < 3.0


def test_a_closed_port_is_told_from_everything_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert http.send(http.Request(port, "GET", "/", 5.0)).refused


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    files.atomic_write(target, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.atomic_write(target, b"new")

    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_is_moved_in_one_step_and_only_when_it_must(tmp_path: Path) -> None:
    link = tmp_path / "current"

    assert files.atomic_link(link, "releases/a")
    assert files.atomic_link(link, "releases/b")
    assert not files.atomic_link(link, "releases/b")
    assert str(link.readlink()) == "releases/b"
    assert list(tmp_path.iterdir()) == [link]


def test_the_lock_is_held_by_one_and_asking_takes_nothing(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert not locks.held(paths)

    with locks.hold(paths, "a test"):
        assert locks.held(paths)
        with pytest.raises(locks.Busy, match=rf"a test \(pid {os.getpid()}, since 20.* UTC\)"), locks.hold(paths):
            pass
        assert locks.held(paths)

    assert not locks.held(paths)


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    code = (
        "import sys, pathlib; from sparknode.base import locks as lock; from sparknode.base import paths\n"
        "with lock.hold(paths.Paths(pathlib.Path(sys.argv[1]))):\n    print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    child = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PACKAGE.parent, env={**os.environ, "PYTHONPATH": "."}
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert locks.held(paths)
        child.kill()
        child.wait(10)

    assert not locks.held(paths)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is shipped: one file."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(PACKAGE, source / "sparknode", ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("bin") / "sparknode"
    (source / "__main__.py").write_bytes((PACKAGE / "__main__.py").read_bytes())
    zipapp.create_archive(source, target)
    return target


def call(program: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(program), *arguments]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_the_shipped_program_tells_its_schemas(program: Path) -> None:
    assert json.loads(call(program, "--version").stdout) == sparknode.SCHEMAS


def test_the_shipped_program_probes_any_machine_in_one_line(program: Path) -> None:
    done = call(program, "probe")

    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["schema"] == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["stage"], "{", "sparknode stage: refused: stage request: this is not JSON"),
        (["stage"], "{}", "sparknode stage: refused: stage request.schema: found nothing, expected 1"),
        (["memory-gate", "/no/such/file"], "", "sparknode memory-gate: refused: /no/such/file: can't be read"),
        (["activate", "0" * 16, "--rollout", "r", "--operator", "o"], "", "is not staged on this host"),
        (["nonsense"], "", "invalid choice"),
    ],
)
def test_refused_input_ends_with_two_and_one_sentence(
    program: Path, arguments: list[str], stdin: str, message: str
) -> None:
    done = call(program, *arguments, stdin=stdin)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
