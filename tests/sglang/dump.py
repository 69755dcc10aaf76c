"""Asks the installed SGLang about its launch_server's arguments. Runs inside the environment of `environment.py`.

Without arguments it prints the whole command line as JSON, in the shape of the vLLM contracts; with arguments it
parses them as the server would, and ends with argparse's own exit code.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import Any

PACKAGE = "sglang"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="sglang.launch_server")
    importlib.import_module(f"{PACKAGE}.srt.server_args").ServerArgs.add_cli_args(made)
    return made


def flags() -> list[dict[str, Any]]:
    return [
        {
            "dest": action.dest,
            "opts": list(action.option_strings),
            "nargs": action.nargs,
            "kind": type(action).__name__.removeprefix("_"),
            "type": getattr(action.type, "__name__", None),
            "choices": sorted(str(choice) for choice in action.choices) if action.choices else None,
        }
        for action in parser()._actions
        if action.dest != "help"
    ]


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps({key: repr(value) for key, value in vars(parser().parse_args(sys.argv[1:])).items()}))
        raise SystemExit
    # SGLang logs to stdout, which is the document's alone.
    document = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    version = importlib.import_module(f"{PACKAGE}.version").__version__
    rows = ",\n  ".join(json.dumps(row) for row in flags())
    with document:
        document.write(f'{{\n "sglang": "{version}",\n "flags": [\n  {rows}\n ]\n}}\n')
