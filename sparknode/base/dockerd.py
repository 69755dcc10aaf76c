"""Docker's daemon, asked over its socket: its command line costs 25 ms of CPU a start before it has asked anything.

Orders still go through that. Nothing raises: as with a program, refusal, silence and garbage are answers.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Sequence

from sparknode.base.parse import json_object
from sparknode.base.process import Completed

NAME = "dockerd"
SOCKET = "/run/docker.sock"
# Of each running container no more than the checks read: the rest may hold other people's secrets.
RUNNING = (NAME, "GET", "/containers/json", "/containers/ID/json")
GONE = 404
_BIGGEST = 16 << 20


def question(path: str) -> tuple[str, ...]:
    """In the form of a command line, as which it stands in bundles and errors."""
    return (NAME, "GET", path)


def ask(argv: Sequence[str], timeout: float) -> Completed:
    """The answer's JSON as stdout; where there is none, why as stderr, and the HTTP status in place of an exit code."""
    command, started, rc = tuple(argv), time.monotonic(), 1
    try:
        rc, said = (_running if command == RUNNING else _get)(command[2], started + timeout)
    except (TimeoutError, BlockingIOError):
        # The second: a daemon that hangs has as many callers in its queue as there can be.
        return Completed(command, None, timeout=timeout, seconds=time.monotonic() - started)
    except OSError as problem:
        said = f"{SOCKET}: {problem.strerror}; is Docker installed, does it run, and are you root?"
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        said = f"{SOCKET}: what answers there does not speak as Docker does"
    out, err = ("", said) if rc else (said, "")
    return Completed(command, rc, out, err, timeout, time.monotonic() - started)


def _running(path: str, deadline: float) -> tuple[int, str]:
    rc, said = _get(path, deadline)
    if rc:
        return rc, said
    kept = []
    for row in json.loads(said):
        rc, said = _get(f"/containers/{row['Id']}/json", deadline)
        if rc == GONE:
            # It ended between the two questions.
            continue
        if rc:
            return rc, said
        found = json.loads(said)
        settings = {key: found["HostConfig"].get(key) for key in ("Runtime", "DeviceRequests")}
        environment = [line for line in found["Config"].get("Env") or [] if line.startswith("NVIDIA_VISIBLE_DEVICES=")]
        kept.append({"Name": found["Name"], "Id": row["Id"], "HostConfig": settings, "Env": environment})
    return 0, json.dumps(kept)


def _get(path: str, deadline: float) -> tuple[int, str]:
    """0 and JSON, or the status and what was said. In HTTP/1.0 an answer comes in one piece and ends with the line."""
    got = bytearray()
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(max(deadline - time.monotonic(), 0.001))
        line.connect(SOCKET)
        line.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        while part := line.recv(1 << 16):
            got += part
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if len(got) > _BIGGEST:
                raise ValueError
            line.settimeout(left)
    head, _, body = got.decode("utf-8", "replace").partition("\r\n\r\n")
    status = re.match(r"HTTP/1\.[01] ([1-5]\d\d)\b", head)
    if not status:
        raise ValueError
    if status[1] != "200":
        return int(status[1]), str(json_object(body).get("message") or body[:300])
    json.loads(body)
    return 0, body
