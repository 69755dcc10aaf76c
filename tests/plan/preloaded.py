"""An interpreter that has loaded pyinfra and this tool: each run of either is a process forked from it, with its own
folder, environment, arguments and streams. That costs a third of what a new interpreter does.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from sparkfleet import ROOT

LIMIT_S = 120


@cache
def _server() -> subprocess.Popen[bytes]:
    """One for this process, which ends with it."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.plan.preloaded"],
        cwd=ROOT,
        env={**os.environ, "PYINFRA_PROGRESS": "off"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    # It ends at the end of its standard input.
    atexit.register(server.communicate)
    return server


def run(
    program: Literal["pyinfra", "sparkfleet"],
    argv: Sequence[str],
    streams: tuple[IO[str], IO[str], IO[str]],
    cwd: Path = ROOT,
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Run one of them with these arguments to its end; return its exit code, or the negative number of its signal.

    The streams are standard input, output and error.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    paths = [f"/proc/{os.getpid()}/fd/{stream.fileno()}" for stream in streams]
    request = {"program": program, "argv": argv, "cwd": str(cwd), "environment": dict(environment), "streams": paths}
    server.stdin.write(json.dumps(request).encode() + b"\n")
    if not select.select([server.stdout], [], [], LIMIT_S)[0]:
        os.killpg(server.pid, signal.SIGKILL)
        _server.cache_clear()
        raise TimeoutError(f"{program} {' '.join(argv)} did not end within {LIMIT_S} s")
    answer = server.stdout.readline()
    assert answer, "the preloaded interpreter ended"
    return int(answer)


def _become(request: Mapping[str, Any]) -> None:
    """Make this process what a new interpreter would be that was started so."""
    for number, path in enumerate(request["streams"]):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv[1:] = request["argv"]


def _serve() -> None:
    # First, as in a run of its own: pyinfra's command line lets gevent replace what others import.
    from tests.plan import traced  # noqa: F401, I001
    import gevent
    from gevent import monkey
    from pyinfra_cli.main import main as pyinfra
    from sparkfleet.cli.main import main as sparkfleet
    from sparkfleet.catalog.catalog import load
    from sparkfleet.deploy import session, steps  # noqa: F401

    load()
    # gevent's own ones watch children in its loop, and this process has none that runs.
    fork, waitpid = (monkey.get_original("os", name) for name in ("fork", "waitpid"))
    with os.fdopen(os.dup(0), "rb") as requests:
        for line in requests:
            child = fork()
            if child == 0:
                gevent.reinit()
                request = json.loads(line)
                _become(request)
                sys.exit(pyinfra() if request["program"] == "pyinfra" else sparkfleet())
            _, status = waitpid(child, 0)
            os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    _serve()
