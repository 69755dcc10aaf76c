"""A model as a torrent, made from proven bytes, and the peers of a swarm without a tracker on the network.

Each node asks a tracker of its own on its loopback, which answers with the peers that the controller named: nobody has
to be found, nothing more listens, and no single host is needed for the others to meet.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sparknode.models.manifest import THREADS, Manifest

PIECES = 2000
_SMALLEST, _LARGEST = 1 << 18, 1 << 24
AGAIN_S = 1


def bencode(value: Any) -> bytes:
    """The one spelling of integers, byte strings, lists and dictionaries that torrents are written in (BEP 3)."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, (bytes, str)):
        data = value.encode() if isinstance(value, str) else value
        return b"%d:%s" % (len(data), data)
    if isinstance(value, list):
        return b"l%se" % b"".join(map(bencode, value))
    return b"d%se" % b"".join(bencode(key) + bencode(value[key]) for key in sorted(value))


def piece_bytes(total: int) -> int:
    """A power of two that cuts the whole into about PIECES pieces."""
    size = _SMALLEST
    while size < _LARGEST and size * PIECES < total:
        size *= 2
    return size


def metainfo(manifest: Manifest, folder: Path) -> bytes:
    """The torrent of a folder with all the manifest's files: the same bytes on every host."""
    files = sorted((file for file in manifest.files if file.size), key=lambda file: file.path)
    size = piece_bytes(manifest.total_bytes)
    spans: list[list[tuple[Path, int, int]]] = [[]]
    room = size
    for file in files:
        start = 0
        while start < file.size:
            count = min(room, file.size - start)
            spans[-1].append((folder / file.path, start, count))
            start, room = start + count, room - count
            if not room:
                spans.append([])
                room = size
    with ThreadPoolExecutor(THREADS) as pool:
        pieces = b"".join(pool.map(_piece, [span for span in spans if span]))
    info = {
        "name": manifest.commit,
        "piece length": size,
        "pieces": pieces,
        "private": 1,
        "files": [{"length": file.size, "path": file.path.split("/")} for file in files],
    }
    return bencode({"info": info})


def _piece(span: list[tuple[Path, int, int]]) -> bytes:
    digest = hashlib.sha1()
    for path, start, count in span:
        with path.open("rb") as stream:
            stream.seek(start)
            digest.update(stream.read(count))
    return digest.digest()


@contextmanager
def tracker(peers: Sequence[str], port: int) -> Iterator[str]:
    """Serve the peers' addresses on the loopback; the URL to announce to."""
    compact = b"".join(socket.inet_aton(peer) + port.to_bytes(2, "big") for peer in peers)
    answer = bencode({"interval": AGAIN_S, "min interval": AGAIN_S, "peers": compact})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/announce"
        finally:
            server.shutdown()
            thread.join()
