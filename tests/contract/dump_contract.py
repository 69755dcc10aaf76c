"""Prints, as JSON, what the installed vLLM's command line accepts. Runs inside an environment of `venv.py`.

Known limit: an argument of an Optional type has its converter's name (`_optional_type`), not the type's.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import typing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.contract.parse_server import cli_module, make_parser
else:  # inside the environment there is no project, only this folder
    from parse_server import cli_module, make_parser


def contract() -> dict[str, Any]:
    """Flags, speculation fields and methods, named parsers and backends, and environment variables."""
    vllm = importlib.import_module("vllm")
    config = importlib.import_module("vllm.config")
    backends = importlib.import_module("vllm.v1.attention.backends.registry").AttentionBackendEnum
    tools = importlib.import_module("vllm.tool_parsers").ToolParserManager
    reasoning = importlib.import_module("vllm.reasoning").ReasoningParserManager
    quantization = importlib.import_module("vllm.model_executor.layers.quantization")
    envs = importlib.import_module("vllm.envs")
    parser = make_parser(cli_module())
    actions = [action for action in parser._actions if action.dest != "help"]
    speculation = config.SpeculativeConfig
    method = typing.get_type_hints(speculation)["method"]
    return {
        "vllm": vllm.__version__,
        "flags": [_flag(action) for action in actions],
        "spec_fields": sorted(field.name for field in dataclasses.fields(speculation) if field.init),
        "spec_methods": sorted({str(choice) for choice in _literals(method)}),
        "attention_backends": list(backends.__members__),
        "tool_parsers": sorted(tools.list_registered()),
        "reasoning_parsers": sorted(reasoning.list_registered()),
        "quantization": list(quantization.QUANTIZATION_METHODS),
        "env": sorted(envs.environment_variables),
    }


def _flag(action: argparse.Action) -> dict[str, Any]:
    default = None if action.default is argparse.SUPPRESS else action.default
    return {
        "dest": action.dest,
        "opts": list(action.option_strings),
        "nargs": action.nargs,
        "kind": type(action).__name__.removeprefix("_"),
        "type": getattr(action.type, "__name__", None),
        "choices": sorted(str(choice) for choice in action.choices) if action.choices else None,
        "default": default if _is_json(default) else str(default),
    }


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _literals(hint: Any) -> list[Any]:
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return list(parts)
    return [literal for part in parts for literal in _literals(part)]


if __name__ == "__main__":
    # vLLM logs to stdout, which is the document's alone.
    document = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with document:
        document.write(json.dumps(contract(), indent=1) + "\n")
