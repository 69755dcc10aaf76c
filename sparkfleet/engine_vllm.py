"""How vLLM is started in Docker: its argument list in the order of the model card, and the drafter's JSON."""

from __future__ import annotations

import json

from sparkfleet.catalog import Scalar
from sparkfleet.contract import Contract
from sparkfleet.recipe import Recipe

CARD_ORDER = (
    "served_model_name",
    "host",
    "port",
    "tensor_parallel_size",
    "dtype",
    "quantization",
    "attention_backend",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "trust_remote_code",
    "enable_auto_tool_choice",
    "tool_call_parser",
    "reasoning_parser",
)


def serve_arguments(recipe: Recipe) -> list[str]:
    """Return the arguments after `vllm`: the card's order first, then the others by name, the drafter last."""
    contract = recipe.contract
    rest = sorted(key for key in recipe.args if key not in CARD_ORDER)
    arguments = ["serve", recipe.model.container_path]
    for key in [*(key for key in CARD_ORDER if key in recipe.args), *rest]:
        arguments += _flag(contract, key, recipe.args[key])
    if recipe.speculative is not None:
        arguments += ["--speculative-config", json.dumps(recipe.speculative, separators=(",", ":"))]
    return arguments


def _flag(contract: Contract, key: str, value: Scalar) -> list[str]:
    flag = contract.flags.get(key)
    option = flag.option if flag else f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        if value:
            return [option]
        return [flag.negation] if flag and flag.negation else []
    if isinstance(value, list):
        return [option, *(str(item) for item in value)]
    if key == "gpu_memory_utilization" and isinstance(value, float):
        return [option, f"{value:.2f}"]
    return [option, str(value)]
