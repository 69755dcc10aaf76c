"""One download, whatever the Hub and the wire do: right files in place, or none and the reason."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sparknode.base.paths import Paths
from sparknode.base.system import Host, RealSystem
from sparknode.errors import Failed
from sparknode.models.fetch import fetch
from tests.unit.sparknode.builders import REPO

COMMIT = "b" * 40
SIZE = 8_000_000
WEIGHTS = random.Random(1).randbytes(SIZE)
FILES = {"config.json": b'{"model_type": "toy"}\n', "model.safetensors": WEIGHTS, "sub/tokenizer.json": b"{}\n"}


@dataclass
class Hub:
    """A Hub of one repository; `answer` may spoil a request for the weights: it is given its number and its start."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    answer: Callable[[BaseHTTPRequestHandler, int, int], bool] = lambda *_: False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    authorizations: set[str | None] = field(default_factory=set)
    url: str = ""
    commits: set[str] = field(default_factory=lambda: {COMMIT, "c" * 40})

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        revision, _, path = handler.path.split(f"/{REPO}/resolve/", 1)[-1].partition("/")
        self.authorizations.add(handler.headers.get("Authorization"))
        wanted = handler.headers.get("Range")
        first = int(wanted.split("=")[1].split("-")[0]) if wanted else 0
        if path == "model.safetensors":
            number = sum(1 for name, _ in self.asked if name == path)
            self.asked.append((path, wanted))
            if self.answer(handler, number, first):
                return
        content = self.files.get(path) if revision in self.commits else None
        if content is None:
            handler.send_response(404)
            handler.send_header("X-Error-Code", "EntryNotFound" if revision in self.commits else "RevisionNotFound")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        self.send(handler, content, first, len(content))

    def send(self, handler: BaseHTTPRequestHandler, content: bytes, first: int, until: int) -> None:
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(len(content) - first))
        handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        handler.wfile.write(content[first:until])
        handler.wfile.flush()
        self.sent += max(0, until - first)

    def cut(self, handler: BaseHTTPRequestHandler, first: int, until: int) -> bool:
        """Break the connection off before the byte `until`."""
        self.send(handler, WEIGHTS, first, until)
        handler.close_connection = True
        handler.connection.shutdown(2)
        return True


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.serve(self)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    # The command puts them into its own environment, which here is the tests'.
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


def request(hub: Hub, commit: str = COMMIT, **changes: Any) -> str:
    rows = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "git_blob_sha1": None}
        for path, data in FILES.items()
    ]
    document = {
        "schema": 1,
        "python": sys.executable,
        "endpoint": hub.url,
        "patience_s": 2,
        "reserve_bytes": 0,
        "manifest": {"repo": REPO, "commit": commit, "files": rows},
    }
    return json.dumps({**document, **changes})


def run(hub: Hub, root: Path, **changes: Any) -> list[str]:
    lines: list[str] = []
    assert fetch(Host(Paths(root), RealSystem()), request(hub, **changes), lines.append) == 0
    return lines


def refuse(hub: Hub, root: Path, **changes: Any) -> str:
    """A fetch that must fail; nothing may be in place, and what is left must not be wrong."""
    with pytest.raises(Failed) as raised:
        run(hub, root, **changes)
    assert not (Paths(root).models / REPO).exists()
    return str(raised.value)


def in_place(root: Path, commit: str = COMMIT) -> dict[str, bytes]:
    folder = Paths(root).model_dir(REPO, commit)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_comes_once_and_is_proven(hub: Hub, tmp_path: Path) -> None:
    run(hub, tmp_path)

    assert in_place(tmp_path) == FILES
    assert hub.sent == sum(map(len, FILES.values()))
    assert run(hub, tmp_path) == [f"model {REPO}@{COMMIT[:12]}: already here"]
    assert hub.sent == sum(map(len, FILES.values()))
    assert list(Paths(tmp_path).incoming.rglob("*.*")) == []


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_connection_cut_at_any_tenth_is_taken_up_there(hub: Hub, tmp_path: Path, tenth: int) -> None:
    at = SIZE * tenth // 10
    hub.answer = lambda handler, number, first: number == 0 and hub.cut(handler, first, at)

    run(hub, tmp_path)

    assert in_place(tmp_path) == FILES
    assert hub.sent <= sum(map(len, FILES.values())) * 1.05


def test_a_killed_fetch_is_taken_up_by_the_next_process_at_its_byte(hub: Hub, tmp_path: Path) -> None:
    held = threading.Event()

    def stall(handler: BaseHTTPRequestHandler, number: int, first: int) -> bool:
        if number:
            return False
        hub.send(handler, WEIGHTS, first, SIZE * 7 // 10)
        held.wait(20)
        return True

    hub.answer = stall
    command = [sys.executable, "-m", "sparknode", "--root", str(tmp_path), "fetch"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    process.stdin.write(request(hub))
    process.stdin.close()
    part = Paths(tmp_path).incoming / REPO / f"{COMMIT}.parts" / hashlib.sha256(WEIGHTS).hexdigest()
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size >= SIZE * 6 // 10):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()
    held.set()
    before = part.stat().st_size

    run(hub, tmp_path)

    assert in_place(tmp_path) == FILES
    assert hub.asked[-1] == ("model.safetensors", f"bytes={before}-")


def storm(status: int, times: int, headers: dict[str, str]) -> Callable[[BaseHTTPRequestHandler, int, int], bool]:
    def answer(handler: BaseHTTPRequestHandler, number: int, _first: int) -> bool:
        if number >= times:
            return False
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            handler.send_header(name, value)
        handler.end_headers()
        return True

    return answer


@pytest.mark.parametrize(
    ("status", "headers"), [(429, {"Retry-After": "0"}), (503, {}), (500, {}), (502, {}), (302, {"Location": "/x"})]
)
def test_a_storm_of_errors_passes(hub: Hub, tmp_path: Path, status: int, headers: dict[str, str]) -> None:
    hub.answer = storm(status, 2 if status != 302 else 1, headers)
    if status == 302:
        # The first redirect leads nowhere; the second try is answered as it should be.
        hub.answer = storm(302, 1, {"Location": "http://127.0.0.1:9/dead-cdn"})

    run(hub, tmp_path, patience_s=60)

    assert in_place(tmp_path) == FILES


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (503, {}, "nothing came for"),
        (302, {"Location": "http://127.0.0.1:9/dead-cdn"}, "nothing came for"),
        (401, {"X-Error-Message": "gated"}, "401"),
        (403, {}, "403"),
    ],
)
def test_a_hub_that_does_not_recover_is_a_clear_failure(
    hub: Hub, tmp_path: Path, status: int, headers: dict[str, str], words: str
) -> None:
    hub.answer = storm(status, 10_000, headers)
    assert words in refuse(hub, tmp_path)


def test_a_byte_that_flips_on_the_way_comes_again(hub: Hub, tmp_path: Path) -> None:
    wrong = WEIGHTS[: SIZE // 2] + bytes([WEIGHTS[SIZE // 2] ^ 1]) + WEIGHTS[SIZE // 2 + 1 :]

    def flip(handler: BaseHTTPRequestHandler, number: int, first: int) -> bool:
        if number:
            return False
        hub.send(handler, wrong, first, SIZE)
        return True

    hub.answer = flip

    lines = run(hub, tmp_path)

    assert in_place(tmp_path) == FILES
    assert any("once more, since it came wrong: model.safetensors: sha256 " in line for line in lines)


def test_a_source_with_wrong_bytes_is_never_believed(hub: Hub, tmp_path: Path) -> None:
    hub.files["model.safetensors"] = WEIGHTS[:-1] + b"x"

    assert "the files that arrived are not those of the lock: model.safetensors: sha256 " in refuse(hub, tmp_path)

    hub.files["model.safetensors"] = WEIGHTS
    run(hub, tmp_path)
    assert in_place(tmp_path) == FILES


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_a_file_of_another_length_is_never_believed(hub: Hub, tmp_path: Path, size: int) -> None:
    hub.files["model.safetensors"] = (WEIGHTS + b"x")[:size]
    assert "not fetched" in refuse(hub, tmp_path)


def test_a_repository_that_lost_a_file_is_a_clear_failure(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    words = refuse(hub, tmp_path)
    assert "model.safetensors" in words
    assert "404" in words


def test_a_revision_that_moved_away_under_its_name_does_not_matter_until_it_is_gone(hub: Hub, tmp_path: Path) -> None:
    # `main` means another commit now: what is asked for is the locked one, and never a name.
    run(hub, tmp_path / "before")
    assert in_place(tmp_path / "before") == FILES
    hub.commits = {"d" * 40}

    words = refuse(hub, tmp_path / "after")

    assert "404" in words
    assert "RevisionNotFound" in words


def test_a_token_goes_to_the_hub_and_to_no_line_or_file(hub: Hub, tmp_path: Path) -> None:
    lines = run(hub, tmp_path, token="hf_secret")

    assert hub.authorizations == {"Bearer hf_secret"}
    assert not [line for line in lines if "hf_secret" in line]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()]


def test_the_cap_is_kept(hub: Hub, tmp_path: Path) -> None:
    began = time.monotonic()
    run(hub, tmp_path, limit_bytes_s=4_000_000)
    assert time.monotonic() - began >= 1.8


def test_a_disk_without_room_is_refused_before_a_byte_comes(hub: Hub, tmp_path: Path) -> None:
    assert "must stay free; remove what is not needed" in refuse(hub, tmp_path, reserve_bytes=10**18)
    assert hub.asked == []


def test_files_of_another_revision_are_linked_and_not_fetched(hub: Hub, tmp_path: Path) -> None:
    run(hub, tmp_path)
    sent = hub.sent

    lines = run(hub, tmp_path, manifest=json.loads(request(hub, "c" * 40))["manifest"])

    assert hub.sent == sent
    assert "are here already, in another revision" in "".join(lines)
    first, second = (Paths(tmp_path).model_dir(REPO, commit) / "model.safetensors" for commit in (COMMIT, "c" * 40))
    assert first.stat().st_ino == second.stat().st_ino


def test_a_linked_file_that_rotted_is_fetched(hub: Hub, tmp_path: Path) -> None:
    run(hub, tmp_path)
    rotten = Paths(tmp_path).model_dir(REPO, COMMIT) / "model.safetensors"
    rotten.chmod(0o644)
    rotten.write_bytes(WEIGHTS[:-1] + b"x")

    run(hub, tmp_path, manifest=json.loads(request(hub, "c" * 40))["manifest"])

    assert in_place(tmp_path, "c" * 40) == FILES


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_disk_that_fills_up_on_the_way_ends_with_the_reason_and_goes_on_later(hub: Hub, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(disk)], check=True, timeout=10)
    try:
        filler = disk / "filler"

        def fill(_: BaseHTTPRequestHandler, number: int, _first: int) -> bool:
            # Somebody else takes the room while the file is on its way.
            if number == 0:
                filler.write_bytes(bytes(6_000_000))
            return False

        hub.answer = fill
        words = refuse(hub, disk)
        assert "No space left on device" in words
        filler.unlink()
        run(hub, disk)
        assert in_place(disk) == FILES
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=10)
