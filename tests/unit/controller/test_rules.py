"""Each rule with a combination that breaks it and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sparkfleet.catalog import Catalog
from sparkfleet.errors import FleetError
from sparkfleet.recipe import Choice, compile_recipe
from sparkfleet.rules import COMPILED, Deployment, Finding, judge, rule_texts
from tests.unit.controller.combos import CATALOG, CURRENT, MODEL, PREFIX, STOCK

SETTLED = Deployment(api_key_file="/etc/sparkfleet/api-key.env", terms_accepted=True, image_locked=True)
DENSE = "gemma4-31b-deckard-awq"
Change = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Case:
    """A choice, and a change of the catalogue's rows before it is compiled."""

    profile: str = "agentic"
    image: str = CURRENT
    model: str = MODEL
    hardware: str = "gb10"
    line: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    change: Change | None = None
    deployment: Deployment = SETTLED

    def findings(self) -> list[Finding]:
        catalog = CATALOG
        if self.change is not None:
            document = CATALOG.model_dump(by_alias=True)
            self.change(document)
            catalog = Catalog.model_validate(document)
        choice = Choice(self.model, self.image, self.profile, self.hardware, self.line, self.overrides)
        return judge(compile_recipe(catalog, choice), self.deployment)


def tried(**overrides: Any) -> Case:
    return Case(overrides=overrides)


def env(line: str = "aeon-0.22", **variables: str) -> Change:
    return lambda rows: rows["lines"][line]["env"].update(variables)


def profile_arg(name: str, value: Any, profile: str = "agentic") -> Change:
    return lambda rows: rows["profiles"][profile]["args"].update({name: value})


def cell(section: str, row: str, *path: str, to: Any) -> Change:
    def change(rows: dict[str, Any]) -> None:
        target = rows[section][row]
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to

    return change


FINE = Case()
PLAIN = Case("max-throughput")
# rule → (a combination that breaks it, a part of what it says, a combination that does not)
TABLE: dict[str, tuple[Case, str, Case]] = {
    "drafter-backend": (tried(drafter_attention_backend="flex_attention"), "crashes at the first request", FINE),
    "drafter-unsupported": (Case(image=STOCK), "cannot run it", Case("stock-baseline", STOCK)),
    "drafter-absent": (Case(model=DENSE), "has no drafter", Case("max-throughput", model=DENSE)),
    "drafter-window": (Case(image=PREFIX), "without its sliding window", FINE),
    "drafter-pair": (
        Case(change=cell("models", MODEL, "drafter", "hidden_size", to=5376)),
        "hidden size of the drafter is 5376, of the target 2816",
        FINE,
    ),
    "drafter-path": (
        Case(change=cell("models", MODEL, "drafter", "container_path", to="/models/gemma4-eagle3")),
        "makes vLLM choose method eagle3 instead of dflash",
        FINE,
    ),
    "speculative-method": (
        Case(change=cell("models", MODEL, "drafter", "method", to="dflsh")),
        "speculative method dflsh",
        FINE,
    ),
    "speculative-field": (
        tried(drafter_kv_cache_dtype="bfloat16"),
        "kv_cache_dtype",
        Case(image="2026-07-27-v0.26.0", overrides={"drafter_kv_cache_dtype": "bfloat16"}),
    ),
    "speculative-tokens": (tried(num_speculative_tokens=16), "is 16", tried(num_speculative_tokens=15)),
    "prefix-caching": (
        Case(image=PREFIX, overrides={"enable_prefix_caching": True}),
        "prefix caching is on",
        Case(image=PREFIX),
    ),
    "kv-dtype-drafter": (tried(kv_cache_dtype="fp8"), "kv_cache_dtype is fp8 with the dflash drafter", FINE),
    "kv-dtype-image": (Case("nvfp4-kv", STOCK), "kv_cache_dtype is nvfp4", Case("nvfp4-kv")),
    "drafter-concurrency": (FINE, "max_num_seqs is 64", Case("production")),
    "memory-utilization-missing": (tried(gpu_memory_utilization=None), "is not set", FINE),
    "memory-utilization-limit": (tried(gpu_memory_utilization=0.92), "is 0.92", tried(gpu_memory_utilization=0.88)),
    "memory-utilization-high": (tried(gpu_memory_utilization=0.85), "is 0.85", FINE),
    "kv-cache-bytes": (tried(kv_cache_memory_bytes="8G"), "8589934592", FINE),
    "batched-tokens": (tried(max_num_batched_tokens=65536), "is 65536", FINE),
    "batch-order": (tried(max_num_batched_tokens=32), "32 is under max_num_seqs 64", FINE),
    "body-attention": (tried(attention_backend="flash_attn"), "attention_backend is flash_attn", FINE),
    "attention-backend-unknown": (tried(attention_backend="triton_atn"), "did you mean 'TRITON_ATTN'", FINE),
    "marlin": (tried(moe_backend="marlin"), "moe_backend is marlin", FINE),
    "env-removed": (
        Case(image="2026-07-27-v0.26.0", change=env("aeon-0.26", VLLM_NVFP4_GEMM_BACKEND="flashinfer-cutlass")),
        "gone from vLLM 0.26.0",
        Case(image="2026-07-27-v0.26.0"),
    ),
    "env-deprecated": (FINE, "deprecated in vLLM 0.22.1", Case(image="2026-07-27-v0.26.0")),
    "env-forbidden": (
        Case(image="2026-07-27-v0.26.0", change=env("aeon-0.26", VLLM_ENABLE_STARTUP_PLAN="1")),
        "break the boot",
        Case(image="2026-07-27-v0.26.0"),
    ),
    "env-unknown": (Case(change=env(VLLM_ATENTION="x")), "VLLM_ATENTION is unknown", FINE),
    "v2-model-runner": (
        Case(image="2026-08-16-v0.27.1", change=env("aeon-0.27", VLLM_USE_V2_MODEL_RUNNER="0")),
        "chooses the runner itself",
        Case(image="2026-08-16-v0.27.1"),
    ),
    "flag-unknown": (Case(change=profile_arg("swap_space", 4)), "--swap-space is unknown", FINE),
    "flag-abbreviated": (Case(change=profile_arg("enforce", True)), "--enforce is an abbreviation", FINE),
    "flag-duplicate": (Case(change=profile_arg("max-num-seqs", 8)), "--max-num-seqs is given twice", FINE),
    "flag-value": (Case(change=profile_arg("dtype", "float8")), "takes one of", FINE),
    "required-argument": (tried(max_model_len=None), "max_model_len is None", FINE),
    "contract-inexact": (Case(image="2026-07-27-v0.26.0"), "read from 0.22.1 and 0.32.0", FINE),
    "profile-engine": (Case("sglang-baseline"), "has arguments of sglang", FINE),
    "engine-undeployable": (Case("sglang-baseline", "lmsysorg-sglang"), "runs sglang", FINE),
    "tool-parser": (tried(tool_call_parser="gemma5"), "did you mean 'gemma4'", FINE),
    "reasoning-parser": (tried(reasoning_parser="qwen3"), "reasoning_parser is qwen3", FINE),
    "quantization": (tried(quantization="modelopt"), "quantization is modelopt", FINE),
    "context-length": (tried(max_model_len="512k"), "max_model_len is 512000", tried(max_model_len="256k")),
    "tensor-parallel": (tried(tensor_parallel_size=2), "tensor_parallel_size is 2 on 1 GPU", FINE),
    "architecture": (
        Case(hardware="rtx50"),
        "built for arm64, and hardware rtx50 is amd64",
        Case("stock-baseline", STOCK, hardware="rtx50"),
    ),
    "entrypoint": (Case(change=cell("lines", "aeon-0.22", "entrypoint", to="bash")), "started with bash", FINE),
    "image-state": (Case(image=PREFIX), "is a rollback image", FINE),
    "image-candidate": (Case(image="vllm-openai-0.32.0"), "is a candidate", FINE),
    "image-undeclared": (Case(image="2026-12-01-new", line=CURRENT), f"is treated like {CURRENT}", FINE),
    "image-digest": (Case(deployment=replace(SETTLED, image_locked=False)), "has no digest", FINE),
    "model-unconfirmed": (Case("max-throughput", model="qwen3.5-27b-uncensored"), "is unconfirmed", FINE),
    "model-unproven": (Case("max-throughput", model=DENSE), "needs a patched ModelOpt loader", FINE),
    "stop-order": (tried(shutdown_timeout=100), "engine 100 s, docker 40 s", FINE),
    "start-deadline": (Case(change=cell("profiles", "agentic", "timing", "load_deadline_s", to=600)), "is 600", FINE),
    "ready-timeout": (Case("stock-baseline", STOCK), "VLLM_ENGINE_READY_TIMEOUT_S is 600", FINE),
    "exposure": (
        Case(deployment=replace(SETTLED, api_key_file=None)),
        "would listen on 0.0.0.0 without an API key",
        Case(overrides={"host": "127.0.0.1"}, deployment=replace(SETTLED, api_key_file=None)),
    ),
    "key-unread": (Case("sglang-baseline", "lmsysorg-sglang"), "reads no key", FINE),
    "terms": (Case(deployment=replace(SETTLED, terms_accepted=False)), "are not accepted", FINE),
}
# rule → (a choice that cannot be compiled, a part of what the refusal says)
REFUSED: dict[str, tuple[Case, str]] = {
    "catalogue-id": (Case(profile="agentik"), "did you mean 'agentic'"),
    "image-latest": (Case(image="latest", line=CURRENT), "image_tag is 'latest'"),
    "image-unknown": (Case(image="2026-06-11-pr41704"), f"did you mean '{CURRENT}'"),
    "override-drafter": (Case("max-throughput", overrides={"num_speculative_tokens": 5}), "no drafter to apply to"),
    "override-unknown": (tried(max_num_seq=5), "did you mean 'max_num_seqs'"),
    "override-value": (tried(num_speculative_tokens="ten"), "takes int, not 'ten'"),
}
# More ways to break a rule than its first.
FURTHER: list[tuple[str, Case, str]] = [
    ("drafter-backend", Case(image=PREFIX, overrides={"drafter_attention_backend": "flash_attn"}), "fails at load"),
    ("drafter-backend", tried(drafter_attention_backend="triton_attn"), "not the one that this image runs"),
    ("drafter-pair", Case(change=cell("models", MODEL, "drafter", "vocab_size", to=32000)), "vocabulary"),
    ("drafter-pair", Case(change=cell("models", MODEL, "drafter", "target_layer_ids", to=[30])), "reads layer 30"),
    ("kv-dtype-drafter", tried(kv_cache_dtype="nvfp4"), "nvfp4"),
    ("speculative-tokens", tried(num_speculative_tokens=0), "is 0"),
    ("prefix-caching", Case(image=PREFIX, overrides={"enable_prefix_caching": None}), "prefix caching is on"),
    ("drafter-concurrency", tried(max_num_seqs=None), "not set with a drafter"),
    ("drafter-concurrency", Case("short-context", "2026-07-27-v0.26.0"), "max_num_seqs is 256"),
    ("memory-utilization-missing", tried(gpu_memory_utilization=None, kv_cache_memory_bytes="8G"), "although"),
    ("memory-utilization-limit", tried(gpu_memory_utilization=1.7), "is 1.7"),
    ("memory-utilization-limit", tried(gpu_memory_utilization=0), "is 0"),
    ("batch-order", tried(max_num_seqs=-3), "max_num_seqs is -3"),
    ("required-argument", tried(port=0), "port is 0"),
    ("required-argument", tried(max_model_len="auto"), "max_model_len is auto"),
    ("context-length", tried(max_model_len=-1), "max_model_len is -1"),
    ("tool-parser", tried(tool_call_parser=None), "enable_auto_tool_choice has no tool_call_parser"),
    ("marlin", Case(change=env(VLLM_TEST_FORCE_FP8_MARLIN="1")), "forces the Marlin kernels"),
    ("marlin", Case(change=env(VLLM_NVFP4_GEMM_BACKEND="marlin")), "is marlin"),
    (
        "v2-model-runner",
        Case(image="2026-07-27-v0.26.0", change=env("aeon-0.26", VLLM_USE_V2_MODEL_RUNNER="1")),
        "own drafter path",
    ),
    (
        "v2-model-runner",
        Case(
            image="vllm-openai-0.32.0",
            change=lambda rows: rows["lines"]["vllm-0.32"].update(v2_model_runner="must-set", env={}),
        ),
        "is not set",
    ),
    (
        "env-removed",
        Case(image="2026-09-11-v0.29.0-omni", change=env("aeon-0.29-omni", VLLM_TEST_FORCE_FP8_MARLIN="0")),
        "gone from vLLM 0.29.0",
    ),
    ("quantization", tried(quantization=None), "quantization is None"),
    ("stop-order", tried(shutdown_timeout=-1), "engine -1 s"),
]


def of(rule: str, findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.id == rule]


def test_every_rule_has_a_row_here() -> None:
    assert TABLE.keys() | REFUSED.keys() == rule_texts().keys()
    assert REFUSED.keys() == set(COMPILED)


@pytest.mark.parametrize("rule", TABLE)
def test_a_combination_breaks_it(rule: str) -> None:
    case, words, _ = TABLE[rule]
    found = of(rule, case.findings())
    assert found
    assert words in found[0].found
    assert found[0].severity == rule_texts()[rule].severity


@pytest.mark.parametrize("rule", TABLE)
def test_another_does_not(rule: str) -> None:
    assert not of(rule, TABLE[rule][2].findings())


@pytest.mark.parametrize(("rule", "case", "words"), FURTHER, ids=[f"{row[0]}-{row[2]}" for row in FURTHER])
def test_further_ways_to_break_it(rule: str, case: Case, words: str) -> None:
    found = of(rule, case.findings())
    assert found
    assert words in found[0].found


@pytest.mark.parametrize("rule", REFUSED)
def test_what_cannot_be_compiled_is_refused_with_the_rule(rule: str) -> None:
    case, words = REFUSED[rule]
    with pytest.raises(FleetError) as refused:
        case.findings()
    text = refused.value.text()
    assert text.startswith(f"{rule}: ")
    assert words in text
    assert rule_texts()[rule].remedy in text


def test_a_look_warns_where_a_deploy_refuses() -> None:
    deploy = {finding.id: finding.severity for finding in Case(deployment=Deployment()).findings()}
    look = {finding.id: finding.severity for finding in Case(deployment=Deployment(trial=True)).findings()}
    assert (deploy["exposure"], deploy["terms"]) == ("fail", "fail")
    assert (look["exposure"], look["terms"]) == ("warn", "warn")


def test_a_profile_for_another_engine_is_the_only_complaint() -> None:
    assert [finding.id for finding in Case("sglang-baseline").findings()] == ["profile-engine"]


def test_failures_come_first() -> None:
    severities = [finding.severity for finding in tried(kv_cache_dtype="fp8", max_num_batched_tokens=65536).findings()]
    assert severities == sorted(severities, key=["fail", "warn", "info"].index)
    assert severities[0] == "fail"
