"""The door of a light host: runs the node's program for whoever knocks, each call in a fork of one that has it all
imported already. On a host of its own a call starts a Python; with nine hosts on two cores that would be most of what
is measured.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sys
from pathlib import Path

from sparknode import cli


def serve(path: Path) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen(64)
        while True:
            line, _ = door.accept()
            if os.fork() == 0:
                # The call waits for its own children.
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(line)
                os._exit(0)
            line.close()


def answer(line: socket.socket) -> None:
    asked = b""
    while part := line.recv(65536):
        asked += part
    arguments, text = json.loads(asked)
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(text), io.StringIO(), io.StringIO()
    try:
        code = cli.main(arguments)
    except SystemExit as problem:
        code = int(problem.code or 0)
    line.sendall(json.dumps([code, sys.stdout.getvalue(), sys.stderr.getvalue()]).encode())


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
