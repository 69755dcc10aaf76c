"""pyinfra's own entry point, with the fake connector writing each command down (one JSON line a command)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pyinfra.connectors.fake import FakeConnector
from pyinfra_cli.main import main

TRACE = Path(os.environ["SPARKFLEET_FAKE_TRACE"])
_run = FakeConnector.run_shell_command


def _traced(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
    with TRACE.open("a") as stream:
        stream.write(json.dumps({"host": self.host.name.removeprefix("@fake/"), "command": str(command)}) + "\n")
    return _run(self, command, *args, **kwargs)


FakeConnector.run_shell_command = _traced  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
