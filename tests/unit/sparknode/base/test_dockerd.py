"""Docker's daemon over its socket: what it answers, and each way in which it does not."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparknode.base import dockerd
from sparknode.base.process import Completed
from sparknode.base.system import RealSystem

INFO = dockerd.question("/info")
ODD = "what answers there does not speak as Docker does"


@contextmanager
def daemon(path: Path, answers: Mapping[str, bytes], *, drip: float | None = None) -> Iterator[list[str]]:
    """A socket that gives these bytes, by path; with `drip`, then one more at a time and never an end."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    asked: list[str] = []
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                asked.append(line.recv(65536).decode())
                try:
                    line.sendall(answers.get(asked[-1].split()[1], b""))
                    while drip and not done.wait(drip):
                        line.sendall(b" ")
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        path.unlink()


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dockerd, "SOCKET", str(tmp_path / "docker.sock"))
    return tmp_path / "docker.sock"


def http(body: object, status: str = "200 OK") -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    return f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{text}".encode()


def ask(argv: tuple[str, ...], timeout: float = 5.0) -> Completed:
    return RealSystem().run(argv, timeout)


def test_an_answer_is_what_a_program_would_print(at: Path) -> None:
    with daemon(at, {"/info": http({"ServerVersion": "ü"})}) as asked:
        done = ask(INFO)

    assert (done.rc, json.loads(done.stdout), done.stderr) == (0, {"ServerVersion": "ü"}, "")
    assert (done.argv, done.timeout) == (INFO, 5.0)
    assert asked == ["GET /info HTTP/1.0\r\nHost: docker\r\n\r\n"]


@pytest.mark.parametrize(
    ("raw", "rc", "why"),
    [
        (http({"message": "No such container: x"}, "404 Not Found"), 404, "No such container: x"),
        (http("400 Bad Request", "400 Bad Request"), 400, "400 Bad Request"),
        (http({"message": None}, "500 Internal Server Error"), 500, '{"message": null}'),
        (http('{"ServerVersion": "29'), 1, ODD),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 1, ODD),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 1, ODD),
        (b"HTTP/1.0 2", 1, ODD),
        (http("{}", "000 OK"), 1, ODD),
        (b"", 1, ODD),
        (http("[" * 100_000), 1, ODD),
        (b"HTTP/1.0 200 OK\r\n\r\n\xff\xfe", 1, ODD),
        (http('"' + "x" * (17 << 20) + '"'), 1, ODD),
    ],
)
def test_any_other_answer_is_an_error_in_words(at: Path, raw: bytes, rc: int, why: str) -> None:
    with daemon(at, {"/info": raw}):
        done = ask(INFO)

    assert (done.rc, done.stdout) == (rc, "")
    assert done.why.startswith(f"`dockerd GET /info` ended with {rc}: ")
    assert done.why.endswith(why)


def test_an_answer_that_never_ends_is_given_up_in_time(at: Path) -> None:
    started = time.monotonic()

    with daemon(at, {"/info": http("{}")}, drip=0.05):
        done = ask(INFO, 0.5)

    assert done.why == "`dockerd GET /info` did not answer within 0 s"
    assert time.monotonic() - started < 3.0


def test_a_daemon_that_takes_no_calls_is_silent(at: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(at))
        listener.listen(0)
        assert [ask(INFO, 0.2).timed_out for _ in range(3)] == [True] * 3


def test_no_daemon_is_told_in_words(at: Path) -> None:
    assert f"{at}: No such file or directory; is Docker installed, does it run, and are you root?" in ask(INFO).why
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(at))
        assert f"{at}: Connection refused; is Docker installed, does it run" in ask(INFO).why


def test_a_login_that_may_not_ask_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", denied)
    assert "Permission denied; " in ask(INFO).why


def test_running_containers_come_without_what_is_nobodys_business(at: Path) -> None:
    found = {
        "Name": "/db",
        "Config": {"Env": ["PW=hunter2", "NVIDIA_VISIBLE_DEVICES=all"]},
        "HostConfig": {"Runtime": "nvidia", "Binds": ["/x:/y"]},
    }
    answers = {
        "/containers/json": http([{"Id": "a"}, {"Id": "gone"}]),
        "/containers/a/json": http(found),
        "/containers/gone/json": http({"message": "No such container: gone"}, "404 Not Found"),
    }
    with daemon(at, answers):
        done = ask(dockerd.RUNNING)

    settings = {"Runtime": "nvidia", "DeviceRequests": None}
    kept = [{"Name": "/db", "Id": "a", "HostConfig": settings, "Env": ["NVIDIA_VISIBLE_DEVICES=all"]}]
    assert (done.rc, json.loads(done.stdout)) == (0, kept)


@pytest.mark.parametrize("rows", [None, 1, {}, "x", [1], [{}], [{"Id": None}], [{"Id": "b"}], [{"Id": "c"}]])
def test_running_containers_of_another_shape_are_an_error(at: Path, rows: object) -> None:
    answers = {"/containers/b/json": http({"Name": "/b"}), "/containers/c/json": http(["x"])}
    with daemon(at, {"/containers/json": http(rows), **answers}):
        done = ask(dockerd.RUNNING)

    assert done.ok == (rows == {})
    assert done.ok or done.why.endswith(ODD)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.sampled_from([b"", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 404 "]))
def test_no_answer_makes_anything_raise(at: Path, raw: bytes, head: bytes) -> None:
    with daemon(at, {"/info": head + raw, "/containers/json": head + raw}):
        for argv in (INFO, dockerd.RUNNING):
            done = ask(argv)
            assert done.ok or done.why
