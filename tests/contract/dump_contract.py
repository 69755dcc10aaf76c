"""Prints, as JSON, what the installed vLLM's command line accepts. Runs inside an environment of `venv.py`."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import typing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.contract.describe import arguments
    from tests.contract.parse_server import cli_module, make_parser
else:  # inside the environment there is no project, only this folder
    from describe import arguments
    from parse_server import cli_module, make_parser


def contract() -> dict[str, Any]:
    """Arguments, speculation fields and methods, named parsers and backends, and environment variables."""
    config = importlib.import_module("vllm.config")
    backends = importlib.import_module("vllm.v1.attention.backends.registry").AttentionBackendEnum
    tools = importlib.import_module("vllm.tool_parsers").ToolParserManager
    reasoning = importlib.import_module("vllm.reasoning").ReasoningParserManager
    quantization = importlib.import_module("vllm.model_executor.layers.quantization")
    loaders = importlib.import_module("vllm.model_executor.model_loader")
    envs = importlib.import_module("vllm.envs")
    speculation = config.SpeculativeConfig
    method = typing.get_type_hints(speculation)["method"]
    described = arguments(make_parser(cli_module()))
    # The parser takes any text, and the engine only what has a loader; from 0.33 on it is so with the cache's types.
    described["load_format"]["choices"] = sorted(loaders._LOAD_FORMAT_TO_MODEL_LOADER)
    if "choices" not in described["kv_cache_dtype"]:
        described["kv_cache_dtype"]["choices"] = sorted(importlib.import_module("vllm.config.cache").KV_CACHE_DTYPES)
    return {
        "arguments": described,
        "values": {
            "spec_fields": sorted(field.name for field in dataclasses.fields(speculation) if field.init),
            "spec_methods": sorted({str(choice) for choice in _literals(method)}),
            "attention_backends": sorted(backends.__members__),
            "tool_parsers": sorted(tools.list_registered()),
            "reasoning_parsers": sorted(reasoning.list_registered()),
            "quantization": sorted(quantization.QUANTIZATION_METHODS),
            "env": sorted(envs.environment_variables),
        },
    }


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
        document.write(json.dumps(contract()) + "\n")
