"""One HTTP request, mostly to the engine here. Nothing raises: refusal, silence and garbage are answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

MAX_BODY = 16 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """A request; `timeout` is for the whole of it."""

    port: int
    method: str
    path: str
    timeout: float
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    tls: bool = False

    @classmethod
    def to(cls, url: str, method: str, timeout: float) -> Request:
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        tls = parts.scheme == "https"
        host = parts.hostname or "127.0.0.1"
        return cls(parts.port or (443 if tls else 80), method, path, timeout, host=host, tls=tls)


@dataclass(frozen=True)
class Answer:
    """What came back; `status` is None when no HTTP answer came, and `error` then says why.

    `arrivals` tells how much of the body was here after how many seconds.
    """

    status: int | None
    body: bytes = b""
    refused: bool = False
    error: str | None = None
    arrivals: tuple[tuple[int, float], ...] = ()


def send(request: Request) -> Answer:
    """Send one request and read the whole answer within its timeout."""
    # Not above, because it brings TLS and e-mail with it, and a probe asks nobody by HTTP.
    import http.client

    started = time.monotonic()
    # No proxy is ever asked: http.client reads no proxy settings, urllib would.
    kind = http.client.HTTPSConnection if request.tls else http.client.HTTPConnection
    connection = kind(request.host, request.port, timeout=request.timeout)
    late: threading.Timer | None = None
    try:
        connection.connect()
        # The time-out of a socket is for each part of an answer; a server that drips one would take for ever.
        late = threading.Timer(request.timeout, _cut, [connection.sock])
        late.start()
        connection.request(request.method, request.path, body=request.body, headers=dict(request.headers))
        response = connection.getresponse()
        body, arrivals = bytearray(), []
        while len(body) < MAX_BODY and (part := response.read1(65536)):
            body += part
            arrivals.append((len(body), time.monotonic() - started))
        if time.monotonic() - started >= request.timeout:
            return Answer(None, error=f"the answer was not complete within {request.timeout:.0f} s")
        if response.length:
            return Answer(None, error=f"the answer was cut off {response.length} bytes before its end")
        return Answer(response.status, bytes(body), arrivals=tuple(arrivals))
    except ConnectionRefusedError:
        return Answer(None, refused=True, error="connection refused")
    except (OSError, http.client.HTTPException, ValueError) as problem:
        if isinstance(problem, TimeoutError) or time.monotonic() - started >= request.timeout:
            return Answer(None, error=f"no answer within {request.timeout:.0f} s")
        return Answer(None, error=f"{type(problem).__name__}: {problem}"[:300])
    finally:
        if late:
            late.cancel()
        connection.close()


def _cut(channel: socket.socket) -> None:
    with suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)
