"""One HTTP request to the engine on this host. Nothing here raises: refusal, silence and garbage are answers."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_BODY = 16 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """A request to 127.0.0.1; `timeout` is for the whole of it."""

    port: int
    method: str
    path: str
    timeout: float
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back; `status` is None when no HTTP answer came, and `error` then says why."""

    status: int | None
    body: bytes = b""
    refused: bool = False
    error: str | None = None


def send(request: Request) -> Answer:
    """Send one request and read the whole answer within its timeout."""
    deadline = time.monotonic() + request.timeout
    # No proxy is ever asked: http.client reads no proxy settings, urllib would.
    connection = http.client.HTTPConnection("127.0.0.1", request.port, timeout=request.timeout)
    try:
        connection.connect()
        socket = connection.sock
        connection.request(request.method, request.path, body=request.body, headers=dict(request.headers))
        response = connection.getresponse()
        body = bytearray()
        while len(body) < MAX_BODY:
            left = deadline - time.monotonic()
            if left <= 0:
                return Answer(None, error=f"the answer was not complete within {request.timeout:.0f} s")
            socket.settimeout(left)
            part = response.read1(65536)
            if not part:
                break
            body += part
        if response.length:
            return Answer(None, error=f"the answer was cut off {response.length} bytes before its end")
        return Answer(response.status, bytes(body))
    except ConnectionRefusedError:
        return Answer(None, refused=True, error="connection refused")
    except TimeoutError:
        return Answer(None, error=f"no answer within {request.timeout:.0f} s")
    except (OSError, http.client.HTTPException, ValueError) as problem:
        return Answer(None, error=f"{type(problem).__name__}: {problem}"[:300])
    finally:
        connection.close()
