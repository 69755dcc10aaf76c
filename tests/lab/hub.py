"""A stand-in for the Hugging Face Hub: the routes that the real client uses, over a plain folder of repositories.

The store is ``STORE/ORG/REPO/COMMIT/…`` with the commit that ``main`` means in ``STORE/ORG/REPO/refs/main``; any
repository put there is served. Faults and the log of what was served are in ``hub_log`` and ``hub_faults``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.lab.hub_faults import Fault, Faults

# What the Hub keeps outside git; the client then trusts a SHA-256 and not a git object's name.
LARGE = (".safetensors", ".bin", ".gguf", ".png")
CHUNK = 1 << 16
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class File:
    path: str
    size: int
    blob: str
    sha256: str | None

    @property
    def etag(self) -> str:
        return self.sha256 or self.blob


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root

    def commit(self, repo: str, revision: str) -> str | None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or ".." in repo:
            return None
        folder = self.root / repo
        if COMMIT.fullmatch(revision):
            return revision if (folder / revision).is_dir() else None
        reference = folder / "refs" / revision
        return reference.read_text().strip() if reference.is_file() else None

    def has(self, repo: str) -> bool:
        return self.commit(repo, "main") is not None

    def files(self, repo: str, commit: str) -> list[File]:
        base = self.root / repo / commit
        paths = sorted(path for path in base.rglob("*") if path.is_file())
        return [self.file(repo, commit, str(path.relative_to(base))) for path in paths]

    def file(self, repo: str, commit: str, path: str) -> File:
        source = self.source(repo, commit, path)
        stat = source.stat()
        blob, sha256 = _hashes(source, stat.st_size, stat.st_mtime_ns)
        return File(path, stat.st_size, blob, sha256 if path.endswith(LARGE) else None)

    def source(self, repo: str, commit: str, path: str) -> Path:
        base = (self.root / repo / commit).resolve()
        source = (base / path).resolve()
        if not source.is_relative_to(base) or not source.is_file():
            raise FileNotFoundError(path)
        return source


@lru_cache(maxsize=4096)
def _hashes(source: Path, size: int, _: int) -> tuple[str, str]:
    """The git blob name and the SHA-256 of a file; for a large file git only holds a pointer, and its name is that."""
    plain, git = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode())
    with source.open("rb") as file:
        while chunk := file.read(1 << 20):
            plain.update(chunk)
            git.update(chunk)
    if not source.name.endswith(LARGE):
        return git.hexdigest(), plain.hexdigest()
    pointer = _pointer(plain.hexdigest(), size)
    return hashlib.sha1(f"blob {len(pointer)}\0".encode() + pointer).hexdigest(), plain.hexdigest()


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def _route(self) -> None:
        self._sent, self._status = 0, 0
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._dispatch(path, body)
        except FileNotFoundError:
            self._missing("EntryNotFound", "Entry not found")
        finally:
            self.server.note(self.client_address[0], self.command, path, self._status, self._sent)

    def _dispatch(self, path: str, body: bytes) -> None:
        fault = self.server.faults.take(path)
        if fault is not None and self._failed_outright(fault):
            return
        model = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        large = re.fullmatch(r"/lfs/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path)
        if path == "/api/whoami-v2":
            self._json(401, {"error": "Invalid credentials in Authorization header"})
        elif model:
            self._describe(model[1], model[2] or "revision", model[3] or "main", model[4] or "", body)
        elif resolve:
            self._resolve(resolve[1], resolve[2], resolve[3], fault)
        elif large:
            self._content(large[1], large[2], large[3], fault)
        else:
            self._missing("RepoNotFound", f"Nothing is served at {path}")

    def _failed_outright(self, fault: Fault) -> bool:
        if fault.kind == "status":
            self._json(fault.status, {"error": "Told to by the lab"}, {"Retry-After": str(fault.retry_after_s)})
        elif fault.kind == "hang":
            self.server.stopping.wait(fault.seconds)
            self.close_connection = True
        else:
            return False
        return True

    def _found(self, repo: str, revision: str) -> str | None:
        if not self.server.store.has(repo):
            self._missing("RepoNotFound", f"Repository {repo} not found")
            return None
        commit = self.server.store.commit(repo, revision)
        if commit is None:
            self._missing("RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _missing(self, code: str, message: str) -> None:
        self._json(404, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def _describe(self, repo: str, what: str, revision: str, prefix: str, body: bytes) -> None:
        commit = self._found(repo, revision)
        if commit is None:
            return
        files = self.server.store.files(repo, commit)
        if what == "revision":
            self._json(200, _model(repo, commit, files))
        elif what == "tree":
            within = f"{prefix}/" if prefix else ""
            self._json(200, [_entry(file) for file in files if file.path.startswith(within)])
        else:
            wanted = set(_form(body).get("paths", []))
            self._json(200, [_entry(file) for file in files if file.path in wanted])

    def _resolve(self, repo: str, revision: str, path: str, fault: Fault | None) -> None:
        commit = self._found(repo, revision)
        if commit is None:
            return
        file = self.server.store.file(repo, commit, path)
        if file.sha256 is None:
            self._content(repo, commit, path, fault)
            return
        # Large files come from elsewhere, as on the Hub: the answer names size and hash and sends the client on.
        host = self.headers.get("Host", "")
        headers = {
            "Location": f"http://{host}/lfs/{repo}/{commit}/{quote(path)}",
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(file.size),
            "X-Linked-ETag": f'"{file.sha256}"',
            "ETag": f'"{file.sha256}"',
        }
        self._send(302, b"", headers)

    def _content(self, repo: str, commit: str, path: str, fault: Fault | None) -> None:
        file = self.server.store.file(repo, commit, path)
        start, end = 0, file.size - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {
            "ETag": f'"{file.etag}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'inline; filename="{Path(path).name}"',
        }
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or end), end)
            if start > end:
                self._send(416, b"", {"Content-Range": f"bytes */{file.size}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end}/{file.size}"
        self._head(206 if asked else 200, headers, end - start + 1)
        if self.command != "HEAD":
            self._body(self.server.store.source(repo, commit, path), start, end, fault)

    def _body(self, source: Path, start: int, end: int, fault: Fault | None) -> None:
        total = end - start + 1
        stop = start + total // 2 if fault and fault.kind == "truncate" else end + 1
        middle = start + total // 2
        with source.open("rb") as stream:
            stream.seek(start)
            place = start
            while place < stop and (chunk := stream.read(min(CHUNK, stop - place))):
                if fault and fault.kind == "flip" and place <= middle < place + len(chunk):
                    at = middle - place
                    chunk = chunk[:at] + bytes([chunk[at] ^ 0x01]) + chunk[at + 1 :]
                if fault and fault.kind == "slow":
                    self.server.stopping.wait(len(chunk) / fault.bytes_per_second)
                self.wfile.write(chunk)
                self._sent += len(chunk)
                place += len(chunk)
        if place <= end:
            self.close_connection = True

    def _json(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, headers, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)
            self._sent += len(body)

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        self._status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


class HubServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], store: Path, folder: Path) -> None:
        super().__init__(address, Handler)
        self.store = Store(store)
        self.faults = Faults(folder / "hub-faults.json")
        self.stopping = threading.Event()
        self._log = folder / "hub-access.jsonl"
        self._lock = threading.Lock()

    def note(self, client: str, method: str, path: str, status: int, sent: int) -> None:
        entry = {"t": time.time(), "client": client, "method": method, "path": path, "status": status, "bytes": sent}
        with self._lock, self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def handle_error(self, *_: Any) -> None:
        # A client that hangs up half-way is part of the trade.
        return


def _model(repo: str, commit: str, files: list[File]) -> dict[str, Any]:
    siblings = []
    for file in files:
        sibling: dict[str, Any] = {"rfilename": file.path, "size": file.size, "blobId": file.blob}
        if file.sha256:
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
        siblings.append(sibling)
    return {
        "_id": hashlib.sha256(repo.encode()).hexdigest()[:24],
        "id": repo,
        "modelId": repo,
        "author": repo.split("/", maxsplit=1)[0],
        "sha": commit,
        "private": False,
        "gated": False,
        "disabled": False,
        "tags": ["sparkfleet-lab-stand-in"],
        "downloads": 0,
        "likes": 0,
        "lastModified": "2026-06-08T00:00:00.000Z",
        "createdAt": "2026-05-01T00:00:00.000Z",
        "siblings": siblings,
    }


def _entry(file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": file.path, "size": file.size, "oid": file.blob}
    if file.sha256:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
    return entry


def _pointer_size(file: File) -> int:
    return len(_pointer(file.sha256 or "", file.size))


def _form(body: bytes) -> dict[str, list[str]]:
    return parse_qs(body.decode())


if __name__ == "__main__":
    HubServer((sys.argv[1], int(sys.argv[2])), Path(sys.argv[3]), Path(sys.argv[4])).serve_forever()
