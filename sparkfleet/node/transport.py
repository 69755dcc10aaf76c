"""The socket below SSH: it sends at once, and notices a host that vanished.

With Nagle's delay each remote command waits some 44 ms for an acknowledgement that comes late. And whoever only reads
never learns that the other end lost its power or its cable, because no packet says so: TCP has to ask.
"""

from __future__ import annotations

import socket
from typing import Any

from paramiko import Transport

# Quiet for 30 s, then asked three times in 30 s; what is sent is to be acknowledged in that time as well. A name that a
# system does not have is left out: macOS has neither TCP_KEEPIDLE nor TCP_USER_TIMEOUT.
_GONE_AFTER_S = 60
_OPTIONS = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPALIVE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": _GONE_AFTER_S * 1000,
}


def attentive(sock: Any, **options: Any) -> Transport:
    """Return paramiko's transport over such a socket; what a jump host gives is taken as it is."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Transport(sock, **options)
