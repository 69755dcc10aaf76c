"""Download files of one repository at one commit with huggingface_hub, taking up at the byte where it stopped.

This module alone runs in the tool environment (see `fetch.tool_python`), whose interpreter has huggingface_hub. The
library's own `hf_hub_download` deletes a partial file when its process ends badly (huggingface_hub#4228), and the old
file before the new one is there. So its `http_get`, which resumes by range, writes into partial files of our own.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

# Answers that another try won't change.
_FINAL = (401, 403, 404, 410)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_NEWS_S = 0.5
_CHUNK = 1 << 18
_PR_SET_PDEATHSIG = 1


class _Part:
    """A partial file as http_get sees it: every write is counted, and slowed to the limit."""

    def __init__(self, stream: BinaryIO, limit: float | None, count: Callable[[int], None]) -> None:
        self._stream, self._limit, self._count = stream, limit, count
        self._started, self._written = time.monotonic(), 0

    def write(self, chunk: bytes) -> int:
        self._stream.write(chunk)
        self._written += len(chunk)
        self._count(len(chunk))
        if self._limit:
            time.sleep(max(0.0, self._written / self._limit - (time.monotonic() - self._started)))
        return len(chunk)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def get(request: dict[str, Any], say: Callable[[str], None]) -> int:
    """Bring the request's files to its folder; `+N` on standard output are bytes that came, everything else is for
    people. 0 when all came, whatever they hold: their bytes are proven by whoever asked.
    """
    from huggingface_hub import constants, hf_hub_url

    # What was read of a chunk when the connection breaks is lost; the library's own 10 MB are a lot on a thin WAN.
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    unsaid, said = 0, time.monotonic()

    def count(size: int) -> None:
        nonlocal unsaid, said
        unsaid += size
        if time.monotonic() - said >= _NEWS_S:
            say(f"+{unsaid}")
            unsaid, said = 0, time.monotonic()

    folder, parts = Path(request["folder"]), Path(request["parts"])
    parts.mkdir(parents=True, exist_ok=True)
    for file in request["files"]:
        url = hf_hub_url(request["repo"], file["path"], revision=request["commit"], endpoint=request["endpoint"])
        part = parts / str(file["sha256"] or file["git_blob_sha1"])
        problem = _one(url, part, int(file["size"]), request, say, count)
        if problem:
            say(f"{file['path']}: {problem}")
            return 1
        (folder / file["path"]).parent.mkdir(parents=True, exist_ok=True)
        part.replace(folder / file["path"])
    say(f"+{unsaid}")
    return 0


def _one(
    url: str, part: Path, size: int, request: dict[str, Any], say: Callable[[str], None], count: Callable[[int], None]
) -> str | None:
    """Fetch one file to its partial file; why it can't be had, or None."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    headers = {**build_hf_headers(token=request.get("token") or False), "Accept-Encoding": "identity"}
    pause, moved, had = _FIRST_PAUSE_S, time.monotonic(), 0
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    while True:
        with part.open("ab") as stream:
            have = stream.tell()
            if have == size:
                return None
            if have > had:
                pause, moved, had = _FIRST_PAUSE_S, time.monotonic(), have
            try:
                writer: Any = _Part(stream, request.get("limit"), count)
                http_get(url, writer, resume_size=have, headers=headers, expected_size=size)
                continue
            except Exception as error:  # the library raises a wide and changing set of errors
                problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                status = getattr(getattr(error, "response", None), "status_code", None)
                if status in _FINAL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    return problem
        if part.stat().st_size > size:
            part.unlink()
            return f"it has more than the locked {size} bytes"
        if part.stat().st_size <= had and time.monotonic() - moved + pause > request["patience"]:
            return f"nothing came for {time.monotonic() - moved:.0f} s, at last {problem}"
        say(f"{problem}; trying again in {pause:.0f} s")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def main(_host: object, path: str, say: Callable[[str], None]) -> int:
    """Carry out the request that a file holds; the token is in the environment alone. Ends with whoever called: two
    that write to one partial file would spoil it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return get({**json.loads(Path(path).read_text(encoding="utf-8")), "token": os.environ.get("HF_TOKEN")}, say)
