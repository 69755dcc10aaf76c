"""Running the node's program over the host's open connection, with its lines shown as they come."""

from __future__ import annotations

import json
from typing import Any

from pyinfra.api import Host, QuoteString, StringCommand
from pyinfra.api.exceptions import OperationError

RESULT_MARK = "sparknode-result "


def sparknode(host: Host, arguments: list[str], stdin: str | None = None) -> tuple[bool, dict[str, Any]]:
    """Run `sparknode ARGUMENTS` as root on the host; return whether it succeeded and its result document."""
    command = StringCommand("/usr/local/bin/sparknode", *(QuoteString(argument) for argument in arguments))
    ok, output = host.run_shell_command(
        command, _sudo=True, _stdin=stdin.splitlines() if stdin else None, print_output=True
    )
    result: dict[str, Any] = {}
    for line in output.stdout_lines:
        if line.startswith(RESULT_MARK):
            result = json.loads(line[len(RESULT_MARK) :])
    return ok, result


def require(ok: bool, message: str) -> None:
    if not ok:
        raise OperationError(message)
