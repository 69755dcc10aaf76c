"""vLLM: its argument list in the order of the model card, and the drafter's JSON.

The HTTP side was read from vLLM 0.22.1 to 0.33.0: /health says 200 without generating anything and stays 200 while
draining; speculation is counted in totals, so a gate reads differences.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sparkfleet.catalog import Model, Profile, Scalar
from sparkfleet.engine import Api, Engine, flag_words

if TYPE_CHECKING:
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


def _model_arguments(model: Model, profile: Profile) -> dict[str, Scalar]:
    return {
        "served_model_name": list(model.served_names),
        "quantization": model.quantization,
        "attention_backend": model.attention_backend,
        "trust_remote_code": True if model.trust_remote_code else None,
        "tool_call_parser": model.tool_call_parser,
        "reasoning_parser": model.reasoning_parser,
        "shutdown_timeout": profile.timing.shutdown_timeout_s,
    }


def _arguments(recipe: Recipe) -> list[str]:
    """The card's order first, then the others by name, the drafter last."""
    rest = sorted(key for key in recipe.args if key not in CARD_ORDER)
    arguments = [recipe.model.container_path]
    for key in [*(key for key in CARD_ORDER if key in recipe.args), *rest]:
        arguments += flag_words(recipe, key, recipe.args[key])
    if recipe.speculative is not None:
        arguments += ["--speculative-config", json.dumps(recipe.speculative, separators=(",", ":"))]
    return arguments


VLLM = Engine(
    kind="vllm",
    program=("serve",),
    model_arguments=_model_arguments,
    arguments=_arguments,
    docker_options=(),
    # What the first start compiles, kept per image so that the next one takes 2 minutes and not 13 (AEON README;
    # vllm#41871 and vllm#48031 on why the kept files must not outlive their image).
    caches={"vllm": "/root/.cache/vllm", "flashinfer": "/root/.cache/flashinfer", "triton": "/root/.triton"},
    memory_argument="gpu_memory_utilization",
    context_argument="max_model_len",
    # Set by the recipe itself, so an override would contradict what is staged, mounted or kept secret.
    reserved=frozenset(
        {"model_tag", "model", "speculative_config", "served_model_name", "config", "headless", "api_key"}
        | {"spec_method", "spec_model", "spec_tokens"}
    ),
    key_variable="VLLM_API_KEY",
    ready_timeout=("VLLM_ENGINE_READY_TIMEOUT_S", 600),
    deployable=True,
    api=Api(
        readiness_path="/health",
        readiness_generates=False,
        identity_path="/v1/models",
        version_path="/version",
        metrics_path="/metrics",
        metrics={
            "running": "vllm:num_requests_running",
            "waiting": "vllm:num_requests_waiting",
            "drafts": "vllm:spec_decode_num_drafts_total",
            "drafted": "vllm:spec_decode_num_draft_tokens_total",
            "accepted": "vllm:spec_decode_num_accepted_tokens_total",
        },
        acceptance_is_counter=True,
        health_while_draining=200,
    ),
)
