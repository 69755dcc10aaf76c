"""pyinfra's own entry point, with the fake connector writing each command down (one JSON line a command) and the
node's program answering from tests/plan/fakenode.py.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.output import echo
from pyinfra.connectors.fake import FakeConnector
from pyinfra_cli.main import main

from tests.plan.fakenode import FakeNode

_run = FakeConnector.run_shell_command
_nodes: dict[str, FakeNode] = {}


def _in_folder(name: str) -> Path:
    return Path(os.environ["SPARKFLEET_FAKE_FOLDER"], name)


def _node(name: str) -> FakeNode:
    if not _nodes:
        scripts = json.loads(_in_folder("nodes.json").read_text())
        _nodes.update({host: FakeNode(script) for host, script in scripts.items()})
    return _nodes[name]


def _write(row: dict[str, Any]) -> None:
    with _in_folder("trace.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def _traced(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
    name = self.host.name.removeprefix("@fake/")
    _write({"host": name, "command": str(command)})
    began = time.monotonic()
    try:
        own = _node(name).answer(str(command))
    finally:
        if "sparknode activate " in str(command):
            _write({"host": name, "activated": str(command).split()[2], "began": began, "ended": time.monotonic()})
    done = _run(self, command, *args, **kwargs)
    if own and kwargs.get("print_output"):
        for line in own[1].combined_lines:
            echo(f"{self.host.print_prefix}{line.line}", err=True)
    return own or done


def _connected(self: Any) -> None:
    script = _node(self.host.name.removeprefix("@fake/")).script
    gevent.sleep(script.get("connects_after_s", 0))
    if script.get("unreachable"):
        raise ConnectError("no route to the host")


FakeConnector.run_shell_command = _traced  # type: ignore[method-assign]
FakeConnector.connect = _connected  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
