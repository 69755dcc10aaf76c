"""SSH without Nagle's delay: with it, each remote command waits some 44 ms for an acknowledgement that comes late."""

from __future__ import annotations

import socket
from typing import Any

from paramiko import Transport


def without_delay(sock: Any, **options: Any) -> Transport:
    """Return paramiko's transport over a socket that sends at once; what a jump host gives is taken as it is."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Transport(sock, **options)
