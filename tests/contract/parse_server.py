"""Asks the installed vLLM what it makes of command lines. Runs inside an environment of `venv.py`, alone.

Each line on stdin is one question, each line on stdout its answer:

    {"id": 1, "argv": ["/models/m", "--port", "8000"], "model_dirs": {"/models/m": "/a/folder"}, "deep": true}
    {"id": 1, "ok": true, "layer": null, "error": null, "resolved": {...}}
    {"id": 2, "contract": true}
    {"id": 2, "ok": true, "layer": null, "error": null, "resolved": {"arguments": {...}, "values": {...}}}

`argv` is what follows `vllm serve`. The layers, in their order, are "argparse" (the parser), "validate"
(vLLM's checks of the parsed arguments) and "engine_config" (the whole configuration that a start would build;
only when `deep`). `model_dirs` names the folder to read instead of each container path. A question about the contract
is answered with what `dump_contract.py` prints.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
from types import ModuleType
from typing import Any

# 0.33, 0.29 to 0.32 and 0.19 to 0.28 keep the same functions in different modules.
CLI_MODULES = (
    "vllm.entrypoints.common.cli_args",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.entrypoints.openai.cli_args",
)


def cli_module() -> ModuleType:
    """The module of the installed vLLM that makes the parser of `vllm serve`."""
    for name in CLI_MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Only the absence of this very module says that another version is installed.
            if not error.name or not name.startswith(error.name):
                raise
    raise ModuleNotFoundError(f"this vLLM has none of {', '.join(CLI_MODULES)}")


def make_parser(cli: ModuleType) -> Any:
    """The parser of `vllm serve`."""
    argparse_utils = importlib.import_module("vllm.utils.argparse_utils")
    return cli.make_arg_parser(argparse_utils.FlexibleArgumentParser(prog="vllm serve"))


class Judge:
    """The parser, its checks and the engine's configuration, asked in turn."""

    def __init__(self) -> None:
        self._cli = cli_module()
        self._parser = make_parser(self._cli)
        self._engine_args = importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if question.get("contract"):
            return _answer(question, None, None, importlib.import_module("dump_contract").contract())
        layer, complaint = "argparse", io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):
                arguments = self._parser.parse_args(question["argv"])
            layer = "validate"
            self._cli.validate_parsed_serve_args(arguments)
            resolved = {}
            if question.get("deep"):
                layer = "engine_config"
                resolved = self._configure(arguments, question.get("model_dirs") or {})
        except SystemExit as stop:
            usage_and_error = complaint.getvalue().strip().splitlines() or [f"exit {stop.code}"]
            return _answer(question, layer, usage_and_error[-1], {})
        except Exception as error:
            return _answer(question, layer, f"{type(error).__name__}: {error}", {})
        return _answer(question, None, None, resolved)

    def _configure(self, arguments: Any, folders: dict[str, str]) -> dict[str, Any]:
        tag = arguments.model_tag or arguments.model
        arguments.model = arguments.model_tag = folders.get(tag, tag)
        if isinstance(arguments.speculative_config, dict):
            drafter = arguments.speculative_config.get("model")
            if drafter in folders:
                arguments.speculative_config = {**arguments.speculative_config, "model": folders[drafter]}
        config = self._engine_args.from_cli_args(arguments).create_engine_config()
        return _resolved(config)


def _resolved(config: Any) -> dict[str, Any]:
    speculative = config.speculative_config
    return {
        "max_model_len": config.model_config.max_model_len,
        "attention_backend": _name(config.attention_config.backend),
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "chunked_prefill": config.scheduler_config.enable_chunked_prefill,
        "speculative": speculative
        and {
            "method": speculative.method,
            "num_speculative_tokens": speculative.num_speculative_tokens,
            "attention_backend": _name(speculative.attention_backend),
            "architectures": speculative.draft_model_config.architectures,
        },
    }


def _name(member: Any) -> str | None:
    return None if member is None else str(getattr(member, "name", member))


def _answer(question: dict[str, Any], layer: str | None, error: str | None, resolved: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": question["id"],
        "ok": layer is None,
        "layer": layer,
        "error": error,
        "resolved": resolved,
    }


def main() -> None:
    # vLLM logs to stdout, which is the answers' alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    judge = Judge()
    for line in sys.stdin:
        answers.write(json.dumps(judge.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
