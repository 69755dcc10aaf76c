"""A pyinfra whose modules are loaded already: each run is a process forked from it, with its own folder, environment,
arguments and streams. A run then costs half of what it costs in a new interpreter.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

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


def run(argv: list[str], cwd: Path, environment: Mapping[str, str], given: IO[str], output: IO[str]) -> int:
    """Run pyinfra with these arguments to its end; return its exit code, or the negative number of its signal."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    streams = [f"/proc/{os.getpid()}/fd/{stream.fileno()}" for stream in (given, output)]
    request = {"argv": argv, "cwd": str(cwd), "environment": dict(environment), "streams": streams}
    server.stdin.write(json.dumps(request).encode() + b"\n")
    if not select.select([server.stdout], [], [], LIMIT_S)[0]:
        os.killpg(server.pid, signal.SIGKILL)
        _server.cache_clear()
        raise TimeoutError(f"pyinfra {' '.join(argv)} did not end within {LIMIT_S} s")
    answer = server.stdout.readline()
    assert answer, "the preloaded pyinfra ended"
    return int(answer)


def _become(request: Mapping[str, Any]) -> None:
    """Make this process what a new interpreter would be that was started so."""
    given, output = request["streams"]
    for number, path, flags in ((0, given, os.O_RDONLY), (1, output, os.O_WRONLY | os.O_APPEND)):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv[1:] = request["argv"]


def _serve() -> None:
    # First, as in a run of its own: pyinfra's command line lets gevent replace what others import.
    from tests.plan import traced  # noqa: F401, I001
    import gevent
    from gevent import monkey
    from pyinfra_cli.main import main
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
                _become(json.loads(line))
                main()
            _, status = waitpid(child, 0)
            os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    _serve()
