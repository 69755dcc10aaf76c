"""Asks the installed SGLang about its launch_server's arguments. Runs inside the environment of `environment.py`.

Without arguments it prints the whole command line as JSON, in the shape of the vLLM recordings; with arguments it
parses them as the server would, and ends with argparse's own exit code.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.contract.describe import arguments
else:  # inside the environment there is no project, only the folder of `describe`
    from describe import arguments

PACKAGE = "sglang"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="sglang.launch_server")
    importlib.import_module(f"{PACKAGE}.srt.server_args").ServerArgs.add_cli_args(made)
    return made


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps({key: repr(value) for key, value in vars(parser().parse_args(sys.argv[1:])).items()}))
        raise SystemExit
    # SGLang logs to stdout, which is the document's alone.
    document = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with document:
        document.write(json.dumps({"arguments": arguments(parser()), "values": {}}) + "\n")
