"""The command line of ``vllm serve``, built from what was recorded of the real parser of that version."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSON_FLAGS = {
    "speculative_config",
    "hf_overrides",
    "compilation_config",
    "kv_transfer_config",
    "kv_events_config",
    "ec_transfer_config",
    "override_generation_config",
    "limit_mm_per_prompt",
    "default_chat_template_kwargs",
    "model_loader_extra_config",
}


@dataclass(frozen=True)
class Contract:
    """What was recorded of one vLLM version: its flags, choices, methods, parsers and environment variables."""

    vllm: str
    flags: list[dict[str, Any]]
    spec_fields: frozenset[str]
    spec_methods: tuple[str, ...]
    attention_backends: tuple[str, ...]
    tool_parsers: tuple[str, ...]
    reasoning_parsers: tuple[str, ...]
    environment: frozenset[str]


def load_contract(version: str) -> Contract:
    recorded = json.loads((fixtures() / f"contract-{version}.json").read_text(encoding="utf-8"))
    return Contract(
        vllm=recorded["vllm"],
        flags=recorded["flags"],
        spec_fields=frozenset(recorded["spec_fields"]),
        spec_methods=tuple(recorded["spec_methods"]),
        attention_backends=tuple(recorded["attention_backends"]),
        tool_parsers=tuple(recorded["tool_parsers"]),
        reasoning_parsers=tuple(recorded["reasoning_parsers"]),
        environment=frozenset(recorded["env"]),
    )


def fixtures() -> Path:
    """Where the recordings lie; the image lays the folders out as the repository does."""
    return Path(__file__).parents[2] / "fixtures" / "engine"


def loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"Value {text} cannot be converted to {json.loads}.") from error


def human_readable_int(text: str) -> int:
    """``1k`` is a thousand and ``1K`` is 1024, as in vLLM."""
    factors = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
    if text and text[-1] in factors:
        return int(float(text[:-1]) * factors[text[-1]])
    return int(text)


def human_readable_int_or_auto(text: str) -> int:
    return -1 if text == "auto" else human_readable_int(text)


TYPES: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "loads": loads,
    "human_readable_int": human_readable_int,
    "human_readable_int_or_auto": human_readable_int_or_auto,
    # The one anonymous converter in vLLM's parser, that of the kernel back ends.
    "<lambda>": lambda text: text.lower().replace("-", "_"),
}


def build_parser(contract: Contract) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vllm serve",
        usage="vllm serve [model_tag] [options]",
        description="Simulated by the sparkfleet lab: the command line of vLLM, without vLLM behind it.",
    )
    for flag in contract.flags:
        if not flag["opts"]:
            parser.add_argument(flag["dest"], nargs=flag["nargs"], default=flag["default"])
            continue
        settings: dict[str, Any] = {"dest": flag["dest"], "default": flag["default"]}
        if flag["kind"] == "StoreTrueAction":
            settings["action"] = "store_true"
        elif flag["kind"] == "BooleanOptionalAction":
            settings["action"] = argparse.BooleanOptionalAction
        else:
            kind = _type_of(flag)
            settings["default"] = _usable(kind, flag["default"])
            settings.update(type=kind, choices=flag["choices"] and [kind(choice) for choice in flag["choices"]])
            if flag["kind"] == "AppendAction":
                settings["action"] = "append"
            else:
                settings["nargs"] = flag["nargs"]
        options = flag["opts"]
        if settings.get("action") is argparse.BooleanOptionalAction:
            options = [option for option in options if not option.startswith("--no-")]
        parser.add_argument(*options, **settings)
    return parser


def _type_of(flag: dict[str, Any]) -> Callable[[str], Any]:
    if flag["dest"] in JSON_FLAGS:
        return loads
    return TYPES.get(str(flag["type"]), str)


def _usable(kind: Callable[[str], Any], default: Any) -> Any:
    """A default that argparse can convert; some were recorded as the text of a Python object."""
    if isinstance(default, str):
        try:
            kind(default)
        except (ValueError, argparse.ArgumentTypeError):
            return None
    return default


def normalise(argv: list[str]) -> list[str]:
    """vLLM takes underscores for dashes in a flag's name."""
    words = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = name.replace("_", "-") + equals + value
        words.append(word)
    return words


def parse(contract: Contract, argv: list[str]) -> argparse.Namespace:
    """The arguments after ``vllm serve``; ends the process with status 2 as argparse does."""
    return build_parser(contract).parse_args(normalise(argv))


def non_default(arguments: argparse.Namespace, contract: Contract) -> dict[str, Any]:
    defaults = {flag["dest"]: flag["default"] for flag in contract.flags}
    return {
        name: "***" if name == "api_key" else value
        for name, value in vars(arguments).items()
        if value is not None and value != defaults.get(name)
    }


def unknown_environment(contract: Contract, version: tuple[int, ...]) -> list[str]:
    # Read by the server's entry point, whether or not the version lists it.
    known = {"VLLM_API_KEY", *contract.environment}
    if version < (0, 29):
        known.add("VLLM_TEST_FORCE_FP8_MARLIN")
    return sorted(name for name in os.environ if name.startswith("VLLM_") and name not in known)
