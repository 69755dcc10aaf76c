"""From a parsed command line to what the engine will do, or the error with which vLLM refuses it (exit status 1)."""

from __future__ import annotations

import argparse
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.engine.cli import Contract
from tests.lab.engine.tags import Tag


class ConfigError(Exception):
    """A configuration that vLLM refuses before it loads anything."""


class LoadError(Exception):
    """What stops vLLM while it loads."""


@dataclass(frozen=True)
class Speculation:
    method: str
    tokens: int
    backend: str | None
    # Set when this drafter comes up healthy and takes the engine down with the first request.
    poison: str | None = None


@dataclass(frozen=True)
class Settings:
    root: str
    served_names: tuple[str, ...]
    host: str
    port: int
    api_keys: tuple[str, ...]
    max_model_len: int
    max_num_seqs: int
    utilization: float
    prefix_caching: bool
    shutdown_timeout_s: int
    reasoning: bool
    tool_parser: bool
    access_log: bool
    quiet_endpoints: frozenset[str]
    speculation: Speculation | None


def resolve(arguments: argparse.Namespace, contract: Contract, tag: Tag) -> Settings:
    model = arguments.model_tag or arguments.model
    config = _read_config(model)
    _check_choices(arguments, contract)
    _check_sizes(arguments)
    _check_quantization(arguments, config)
    max_model_len = _max_model_len(arguments, config)
    keys = arguments.api_key or [key for key in [os.environ.get("VLLM_API_KEY", "")] if key]
    quiet = str(arguments.disable_access_log_for_endpoints or "")
    return Settings(
        root=model,
        served_names=tuple(arguments.served_model_name or [model]),
        host=arguments.host or "0.0.0.0",
        port=arguments.port,
        api_keys=tuple(keys),
        max_model_len=max_model_len,
        max_num_seqs=arguments.max_num_seqs or 256,
        utilization=arguments.gpu_memory_utilization,
        prefix_caching=arguments.enable_prefix_caching is not False,
        shutdown_timeout_s=arguments.shutdown_timeout,
        reasoning=bool(arguments.reasoning_parser),
        tool_parser=bool(arguments.enable_auto_tool_choice),
        access_log=not arguments.disable_uvicorn_access_log,
        quiet_endpoints=frozenset(path for path in quiet.split(",") if path),
        speculation=_speculation(arguments, contract, tag),
    )


def _read_config(model: str) -> dict[str, Any]:
    try:
        config = json.loads(Path(model, "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"OSError: Can't load the configuration of '{model}'. If you were trying to load it from "
            "'https://huggingface.co/models', make sure you don't have a local directory with the same name. "
            f"Otherwise, make sure '{model}' is the correct path to a directory containing a config.json file"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"OSError: It looks like the config file at '{model}/config.json' is not valid JSON"
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ConfigError(
            f"ValueError: Unrecognized model in {model}. Should have a `model_type` key in its config.json."
        )
    return config


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def _check_choices(arguments: argparse.Namespace, contract: Contract) -> None:
    backend = arguments.attention_backend
    if backend and backend.upper() not in contract.attention_backends:
        raise ConfigError(_unknown_backend(backend, contract))
    if arguments.enable_auto_tool_choice and not arguments.tool_call_parser:
        raise ConfigError("TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser")
    parser = arguments.tool_call_parser
    if arguments.enable_auto_tool_choice and parser not in contract.tool_parsers:
        known = ", ".join(contract.tool_parsers)
        raise ConfigError(f"KeyError: 'invalid tool call parser: {parser} (chose from {{ {known} }})'")
    parser = arguments.reasoning_parser
    if parser and parser not in contract.reasoning_parsers:
        known = ", ".join(contract.reasoning_parsers)
        raise ConfigError(f"KeyError: \"Reasoning parser '{parser}' not found. Available parsers: {known}\"")


def _unknown_backend(backend: str, contract: Contract) -> str:
    return (
        f"ValueError: Unknown attention backend: '{backend.upper()}'. "
        f"Valid options are: {', '.join(contract.attention_backends)}"
    )


def _check_sizes(arguments: argparse.Namespace) -> None:
    utilization, sequences = arguments.gpu_memory_utilization, arguments.max_num_seqs
    if not 0 < utilization <= 1:
        raise ConfigError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig\ngpu_memory_utilization\n"
            f"  Input should be less than or equal to 1 [type=less_than_equal, input_value={utilization}]"
        )
    if sequences is not None and sequences < 1:
        raise ConfigError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig\nmax_num_seqs\n"
            f"  Input should be greater than or equal to 1 [type=greater_than_equal, input_value={sequences}]"
        )
    batched = arguments.max_num_batched_tokens
    if batched is not None and batched < (sequences or 256):
        raise ConfigError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig\n  Value error, "
            f"max_num_batched_tokens ({batched}) must be greater than or equal to max_num_seqs ({sequences or 256})."
        )


def _check_quantization(arguments: argparse.Namespace, config: dict[str, Any]) -> None:
    asked = arguments.quantization
    block = config.get("quantization_config")
    found = block.get("quant_method") if isinstance(block, dict) else None
    if asked and found and asked != found:
        raise ConfigError(
            f"ValueError: Quantization method specified in the model config ({found}) does not match "
            f"the quantization method specified in the `quantization` argument ({asked})."
        )
    if asked and not found:
        raise ConfigError(f"TypeError: quantization {asked!r} was asked for and config.json has no quantization_config")


def _max_model_len(arguments: argparse.Namespace, config: dict[str, Any]) -> int:
    derived = int(_text_config(config).get("max_position_embeddings", 4096))
    asked = arguments.max_model_len
    if asked in (None, -1):
        return derived
    if asked > derived and os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") != "1":
        raise ConfigError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, "
            f"User-specified max_model_len ({asked}) is greater than the derived max_model_len "
            f"(max_position_embeddings={derived}). To allow overriding this maximum, set the env var "
            "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."
        )
    return int(asked)


def _speculation(arguments: argparse.Namespace, contract: Contract, tag: Tag) -> Speculation | None:
    asked = arguments.speculative_config
    if asked is None:
        return None
    prefix = "pydantic_core._pydantic_core.ValidationError: 1 validation error for SpeculativeConfig\n"
    if not isinstance(asked, dict):
        raise ConfigError(f"{prefix}  Input should be a dictionary [input_value={asked!r}]")
    for key in asked:
        allowed = key in contract.spec_fields and (key != "kv_cache_dtype" or tag.version >= (0, 26))
        if not allowed:
            raise ConfigError(f"{prefix}{key}\n  Unexpected keyword argument [type=unexpected_keyword_argument]")
    method = asked.get("method")
    if method is not None and method not in contract.spec_methods:
        known = ", ".join(f"'{name}'" for name in contract.spec_methods)
        raise ConfigError(f"{prefix}method\n  Input should be {known} [type=literal_error, input_value={method!r}]")
    # vLLM takes the method from the drafter's path before it looks at the key.
    if "dflash" in str(asked.get("model", "")).lower():
        method = "dflash"
    tokens = asked.get("num_speculative_tokens")
    if not isinstance(tokens, int) or tokens < 1:
        raise ConfigError(f"{prefix}  Value error, num_speculative_tokens must be provided and greater than zero.")
    backend = asked.get("attention_backend")
    if backend and str(backend).upper() not in contract.attention_backends:
        raise ConfigError(f"{prefix}attention_backend\n  {_unknown_backend(str(backend), contract)}")
    speculation = Speculation(method or "draft_model", tokens, str(backend).upper() if backend else None)
    if speculation.method != "dflash":
        return speculation
    if tag.version >= (0, 27) and os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "0":
        raise ConfigError(
            "NotImplementedError: DFlash drafters with mixed sliding/full attention require the V2 model runner; "
            "relaunch with VLLM_USE_V2_MODEL_RUNNER=1."
        )
    return _dflash(speculation, tag)


def _dflash(speculation: Speculation, tag: Tag) -> Speculation:
    if tag.drafter_fixed and speculation.backend == "FLEX_ATTENTION":
        poison = (
            "RuntimeError: view size is not compatible with input tensor's size and stride (non-contiguous KV view)"
        )
        return Speculation(speculation.method, speculation.tokens, speculation.backend, poison)
    return speculation


def check_load(arguments: argparse.Namespace, settings: Settings, tag: Tag) -> None:
    """What only loading finds out: the weights and the drafter's back end."""
    if arguments.load_format != "dummy":
        _check_weights(settings.root)
    speculation = settings.speculation
    drafter = (arguments.speculative_config or {}).get("model")
    if speculation is None or drafter is None:
        return
    config, target = _read_config(drafter), _text_config(_read_config(settings.root))
    if arguments.load_format != "dummy":
        _check_weights(drafter)
    if speculation.method != "dflash":
        return
    if config.get("hidden_size") != target.get("hidden_size"):
        raise LoadError(
            f"RuntimeError: mat1 and mat2 shapes cannot be multiplied: the drafter's hidden_size is "
            f"{config.get('hidden_size')} and the target's is {target.get('hidden_size')}"
        )
    if str(arguments.kv_cache_dtype) not in ("auto", "bfloat16") and tag.version < (0, 26):
        raise LoadError(
            f"ValueError: kv_cache_dtype={arguments.kv_cache_dtype} is not supported by the drafter's attention: "
            "non-causal attention needs a BF16 KV cache"
        )
    if not tag.drafter_fixed and speculation.backend in (None, "FLASH_ATTN"):
        raise LoadError(
            "ValueError: Selected backend AttentionBackendEnum.FLASH_ATTN is not valid for this configuration. "
            "Reason: ['partial multimodal token full attention not supported']"
        )
    if speculation.backend not in (None, "FLASH_ATTN", "FLEX_ATTENTION"):
        raise LoadError(
            f"ValueError: Selected backend AttentionBackendEnum.{speculation.backend} is not valid for this "
            "configuration. Reason: ['non-causal attention not supported']"
        )


def _check_weights(model: str) -> None:
    files = sorted(Path(model).glob("*.safetensors"))
    if not files:
        raise LoadError(f"RuntimeError: Cannot find any model weights with `{model}`")
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            header = stream.read(length) if length < size else b""
        try:
            tensors = json.loads(header)
            end = max(
                (entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"),
                default=0,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LoadError(
                f"safetensors_rust.SafetensorError: Error while deserializing header: {file.name}"
            ) from error
        if 8 + length + end != size:
            raise LoadError(
                "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, "
                f"file not fully covered ({file.name})"
            )
