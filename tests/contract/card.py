"""The model card's command, and the mistakes that people make in it, with the layer of vLLM that refuses each."""

from __future__ import annotations

import json
from typing import Any

SPECULATIVE: dict[str, Any] = {
    "method": "dflash",
    "model": "/models/gemma4-dflash",
    "num_speculative_tokens": 10,
    "attention_backend": "flash_attn",
}
# The command of the model card, word for word.
CARD: dict[str, list[str]] = {
    "--served-model-name": ["gemma4-aeon-uncensored", "gemma4-fast", "gemma4-deep"],
    "--host": ["0.0.0.0"],
    "--port": ["8000"],
    "--tensor-parallel-size": ["1"],
    "--dtype": ["auto"],
    "--quantization": ["compressed-tensors"],
    "--attention-backend": ["triton_attn"],
    "--max-model-len": ["262144"],
    "--max-num-seqs": ["64"],
    "--max-num-batched-tokens": ["32768"],
    "--gpu-memory-utilization": ["0.80"],
    "--enable-chunked-prefill": [],
    "--enable-prefix-caching": [],
    "--trust-remote-code": [],
    "--enable-auto-tool-choice": [],
    "--tool-call-parser": ["gemma4"],
    "--reasoning-parser": ["gemma4"],
    "--speculative-config": [json.dumps(SPECULATIVE, separators=(",", ":"))],
}


def card(*extra: str, without: str = "", **changed: str) -> list[str]:
    """The card's arguments, with flags dropped, changed (by their names, _ for -) or added at the end."""
    flags = {flag: values for flag, values in CARD.items() if flag != without}
    flags.update({f"--{name.replace('_', '-')}": [value] for name, value in changed.items()})
    return ["/models/gemma4", *(word for flag, values in flags.items() for word in (flag, *values)), *extra]


def speculative(**changed: Any) -> list[str]:
    return card(speculative_config=json.dumps({**SPECULATIVE, **changed}))


# (what it is, the arguments, the layer that refuses them or None, a part of what it says)
MISTAKES: list[tuple[str, list[str], str | None, str]] = [
    (
        "an unknown flag",
        card("--enable-prefix-cache"),
        "argparse",
        "unrecognized arguments: --enable-prefix-cache",
    ),
    ("a removed flag", card("--swap-space", "4"), "argparse", "unrecognized arguments: --swap-space"),
    ("a dtype that is none", card(dtype="float8"), "argparse", "invalid choice: 'float8'"),
    ("a cache type that is none", card(kv_cache_dtype="nvfp8"), "argparse", "invalid choice: 'nvfp8'"),
    ("malformed JSON", card(speculative_config="{method:dflash}"), "argparse", "cannot be converted"),
    ("a port that is no number", card(port="http"), "argparse", "invalid int value: 'http'"),
    ("a flag without its value", card("--revision"), "argparse", "expected one argument"),
    ("two models", ["/models/gemma4", "/models/other", "--port", "8000"], "argparse", "unrecognized"),
    ("tool choice without a parser", card(without="--tool-call-parser"), "validate", "--tool-call-parser"),
    ("a speculative config that is no object", card(speculative_config="10"), "engine_config", ""),
    ("a speculation method that is none", speculative(method="dflsh"), "engine_config", "method"),
    ("an unknown speculation key", speculative(num_spec=1), "engine_config", "Unexpected keyword argument"),
    (
        "a drafter backend that is none",
        speculative(attention_backend="flash_atn"),
        "engine_config",
        "Unknown attention backend: 'FLASH_ATN'",
    ),
    (
        "a body backend that is none",
        card(attention_backend="triton_atn"),
        "engine_config",
        "Unknown attention backend: 'TRITON_ATN'",
    ),
    ("a quantisation that is not the model's", card(quantization="nvfp5"), "engine_config", "uantization"),
    ("a reasoning parser that is none", card(reasoning_parser="gemma5"), "engine_config", "gemma5"),
    ("more memory than there is", card(gpu_memory_utilization="1.7"), "engine_config", "CacheConfig"),
    ("a negative number of sequences", card(max_num_seqs="-3"), "engine_config", "SchedulerConfig"),
    ("a batch smaller than its sequences", card(max_num_batched_tokens="32"), "engine_config", "Scheduler"),
    ("a context longer than the model's", card(max_model_len="999999"), "engine_config", "max_model_len"),
    # Accepted by every layer: only the product's own lint finds these.
    ("an abbreviated flag", card("--enforce"), None, ""),
    ("a flag given twice", card("--port", "8001"), None, ""),
    ("a tool parser that is none", card(tool_call_parser="gemma5"), None, ""),
    ("an fp8 cache with a dflash drafter", card(kv_cache_dtype="fp8"), None, ""),
]
