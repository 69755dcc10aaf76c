"""Prints what vLLM's own parser hands to argparse for each line of JSON words on stdin. Runs inside an environment of
`venv.py`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import Any


def main() -> None:
    # vLLM logs to stdout, which is the answers' alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    parser = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser()
    handed: list[list[str]] = []

    def hand(_: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        handed.append(list(args))
        return namespace

    argparse.ArgumentParser.parse_args = hand  # type: ignore[method-assign,assignment]
    with answers:
        for line in sys.stdin:
            parser.parse_args(["serve", *json.loads(line)])
            answers.write(json.dumps(handed.pop()[1:]) + "\n")


if __name__ == "__main__":
    main()
