"""Each rule with a combination that breaks it and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sparkfleet.catalog.catalog import Catalog
from sparkfleet.errors import FleetError
from sparkfleet.release.recipe import Choice, compile_recipe
from sparkfleet.release.rules import COMPILED, Deployment, Finding, judge, rule_texts
from tests.unit.sparkfleet.release.combos import CATALOG, CURRENT, MODEL, PREFIX, STOCK

SETTLED = Deployment(api_key_file="/etc/sparkfleet/api-key.env", terms_accepted=True, image_locked=True)
DENSE = "gemma4-31b-deckard-awq"
AWQ = "2026-07-27-v0.26.0"
QWEN = "qwen3.5-27b-uncensored"
V27 = "2026-08-16-v0.27.1"
OMNI = "2026-08-24-v0.27.1-omni"
UPSTREAM = "vllm-openai-0.32.0"
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


def heads(number: int) -> Change:
    return cell("models", QWEN, "mtp_layers", to=number)


def speculative(**args: Any) -> Change:
    return lambda rows: rows["profiles"]["agentic"].update(speculative_args=args)


def together(*changes: Change) -> Change:
    def change(rows: dict[str, Any]) -> None:
        for one in changes:
            one(rows)

    return change


ASSISTANT = {
    **{"repo": "google/gemma-4-26B-A4B-it-assistant", "revision": None, "container_path": "/models/gemma4-mtp"},
    **{"licence": "Gemma", "method": "mtp", "causal": True, "default_tokens": 4},
}
assisted = cell("models", MODEL, "drafter", to=ASSISTANT)
FINE = Case()
PLAIN = Case("max-throughput")
# rule → (a combination that breaks it, a part of what it says, a combination that does not)
TABLE: dict[str, tuple[Case, str, Case]] = {
    "drafter-backend": (tried(drafter_attention_backend="flex_attention"), "crashes at the first request", FINE),
    "drafter-unsupported": (Case(image=STOCK), "cannot run it", Case("stock-baseline", STOCK)),
    "drafter-absent": (Case(model=QWEN), "has no drafter", Case("max-throughput", model=QWEN)),
    "drafter-backend-unproven": (
        Case(image=V27, overrides={"drafter_attention_backend": "flex_attention"}),
        "the drafter's attention backend flex_attention was never seen to work",
        Case(image=V27, overrides={"drafter_attention_backend": "triton_attn"}),
    ),
    "drafter-unproven": (
        Case(change=speculative(method="ngram", num_speculative_tokens=3, prompt_lookup_max=4)),
        "method ngram was never seen to work",
        Case(change=assisted),
    ),
    "drafter-heads": (
        Case(change=speculative(method="mtp", num_speculative_tokens=3)),
        "drafts with layers of the target",
        Case(model=QWEN, change=together(speculative(method="mtp", num_speculative_tokens=3), heads(1))),
    ),
    "drafter-batch": (tried(max_num_batched_tokens=None), "is not set with a drafter", FINE),
    "speculative-schedule": (
        Case(image=V27, change=speculative(num_speculative_tokens_per_batch_size=[[2, 8, 10]])),
        "starts at batch size 2",
        Case(image=V27, change=speculative(num_speculative_tokens_per_batch_size=[[1, 8, 10], [9, 64, 3]])),
    ),
    "prefix-caching-doubtful": (
        Case(image="dflash-v2", overrides={"enable_prefix_caching": True}),
        "prefix caching is on",
        Case(image="dflash-v2"),
    ),
    "memory-utilization-ceiling": (
        Case(image=OMNI, overrides={"gpu_memory_utilization": 0.83}),
        "hard ceiling is 0.82",
        Case(image=V27, overrides={"gpu_memory_utilization": 0.83}),
    ),
    "kv-capacity": (Case(image=AWQ, model=DENSE), "one request of max_model_len 262,144 needs", FINE),
    "kv-capacity-tight": (
        Case(image=AWQ, model=DENSE, overrides={"max_model_len": 65536}),
        "may be off by 10%",
        Case("short-context", AWQ, DENSE),
    ),
    "kv-capacity-unknown": (Case(model=QWEN), "the layers of qwen3.5-27b-uncensored are not in the catalogue", FINE),
    "argument-twice": (
        tried(attention_config={"backend": "TRITON_ATTN"}),
        "attention_config.backend is TRITON_ATTN, and attention_backend is triton_attn",
        FINE,
    ),
    "value-refused": (tried(distributed_executor_backend="ray"), "distributed_executor_backend is ray", FINE),
    "value-doubtful": (tried(load_format="fastsafetensors"), "froze a Spark", tried(load_format="safetensors")),
    "value-unknown": (tried(distributed_executor_backend="nosuch"), "executor_backend is nosuch", FINE),
    "model-loader": (
        Case("short-context", model=DENSE),
        "on 0.24 the engine died while it loaded",
        Case("short-context", AWQ, DENSE),
    ),
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
        Case(
            change=together(
                cell("models", MODEL, "drafter", "method", to="dflsh"),
                cell("models", MODEL, "drafter", "causal", to=True),
            )
        ),
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
    "kv-dtype-drafter": (
        tried(kv_cache_dtype="fp8"),
        "kv_cache_dtype is fp8 with the dflash drafter on flash_attn",
        Case(image=V27, overrides={"kv_cache_dtype": "fp8", "drafter_attention_backend": "triton_attn"}),
    ),
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
    "env-ignored": (
        Case(image=AWQ, change=env("aeon-0.26", VLLM_USE_FLASHINFER_MOE_FP4="0")),
        "VLLM_USE_FLASHINFER_MOE_FP4=0: gone from vLLM 0.26.0",
        Case(image=AWQ),
    ),
    "long-drafts": (
        tried(num_speculative_tokens=15),
        "num_speculative_tokens is 15 with max_num_seqs 64",
        tried(num_speculative_tokens=15, max_num_seqs=8),
    ),
    "drafter-positions": (
        tried(hf_overrides='{"text_config":{"max_position_embeddings":524288}}'),
        "hf_overrides changes max_position_embeddings",
        tried(hf_overrides='{"text_config":{"final_logit_softcapping":30.0}}'),
    ),
    "engine-fault": (Case(image="2026-06-18-v0.23.0-dflashfix"), "may stay taken until a reboot", FINE),
    "env-deprecated": (FINE, "deprecated in vLLM 0.22.1", Case(image="2026-07-27-v0.26.0")),
    "env-forbidden": (
        Case(image="2026-07-27-v0.26.0", change=env("aeon-0.26", VLLM_ENABLE_STARTUP_PLAN="1")),
        "break the boot",
        Case(image="2026-07-27-v0.26.0"),
    ),
    "env-unknown": (Case(change=env(VLLM_ATENTION="x")), "VLLM_ATENTION is unknown", FINE),
    "v2-model-runner": (
        Case(image=UPSTREAM, change=env("vllm-0.32", VLLM_USE_V2_MODEL_RUNNER="0")),
        "runs this drafter on V2 alone",
        Case(image=V27, change=env("aeon-0.27", VLLM_USE_V2_MODEL_RUNNER="0")),
    ),
    "flag-unknown": (Case(change=profile_arg("swap_space", 4)), "--swap-space is unknown", FINE),
    "flag-abbreviated": (Case(change=profile_arg("enforce", True)), "--enforce is an abbreviation", FINE),
    "flag-duplicate": (Case(change=profile_arg("max-num-seqs", 8)), "--max-num-seqs is given twice", FINE),
    "flag-value": (Case(change=profile_arg("dtype", "float8")), "takes one of", FINE),
    "required-argument": (tried(max_model_len=None), "max_model_len is None", FINE),
    "contract-inexact": (
        Case(image="2026-07-27-v0.26.0", change=cell("lines", "aeon-0.26", "engine_version", to="0.28.0")),
        "read from 0.27.1 and 0.29.0",
        FINE,
    ),
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
    "model-unproven": (
        Case("short-context", UPSTREAM, DENSE),
        "is stored as NVFP4_AWQ",
        Case("short-context", AWQ, DENSE),
    ),
    "stop-order": (tried(shutdown_timeout=100), "engine 100 s, docker 40 s", FINE),
    "start-deadline": (Case(change=cell("profiles", "agentic", "timing", "load_deadline_s", to=600)), "is 600", FINE),
    "ready-timeout": (
        Case(
            "stock-baseline",
            STOCK,
            change=lambda rows: rows["profiles"]["stock-baseline"]["env"].update(VLLM_ENGINE_READY_TIMEOUT_S=None),
        ),
        "VLLM_ENGINE_READY_TIMEOUT_S is 600",
        Case("stock-baseline", STOCK),
    ),
    "exposure": (
        Case(deployment=replace(SETTLED, api_key_file=None)),
        "would listen on 0.0.0.0 without an API key",
        Case(overrides={"host": "127.0.0.1"}, deployment=replace(SETTLED, api_key_file=None)),
    ),
    "key-unread": (Case("sglang-baseline", "lmsysorg-sglang"), "reads no key", FINE),
    "content-unchecked": (
        Case(deployment=replace(SETTLED, unchecked=("acme/model",))),
        "what the files of acme/model hold is unknown",
        FINE,
    ),
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
    "argument-name": (Case(change=profile_arg("compilation_config.cudagraph_mode", "none")), "'compilation_config…'"),
    "reserved-argument": (Case(change=profile_arg("model", "example/other")), "profile agentic sets 'model'"),
    "secret-argument": (Case(change=profile_arg("api_key", ["sk-example"])), "profile agentic sets api_key"),
}
# More ways to break a rule than its first.
FURTHER: list[tuple[str, Case, str]] = [
    ("drafter-backend", Case(image=PREFIX, overrides={"drafter_attention_backend": "flash_attn"}), "fails at load"),
    ("drafter-backend", tried(drafter_attention_backend="triton_attn"), "serves causal drafters alone"),
    ("drafter-backend", Case(image=UPSTREAM, overrides={"drafter_attention_backend": "flash_attn"}), "mm_prefix"),
    (
        "drafter-unproven",
        Case(model=QWEN, change=speculative(method="qwen3_5_mtp", num_speculative_tokens=1)),
        "not known",
    ),
    ("body-attention", tried(attention_backend=None, attention_config={"backend": "FLASH_ATTN"}), "is FLASH_ATTN"),
    ("marlin", tried(kernel_config={"moe_backend": "marlin"}), "moe_backend is marlin"),
    ("marlin", tried(kernel_config='{"linear_backend":"marlin"}'), "linear_backend is marlin"),
    (
        "argument-twice",
        Case(image=AWQ, overrides={"kernel_config": {"moe_backend": "triton"}}),
        "kernel_config.moe_backend",
    ),
    ("batched-tokens", Case(image=OMNI), "is 32768"),
    ("model-loader", Case("short-context", "2026-06-18-v0.23.0-dflashfix", "gemma4-31b-deckard-svdquant"), "0.24"),
    (
        "kv-dtype-drafter",
        Case(image="2026-06-18-v0.23.0-dflashfix", overrides={"kv_cache_dtype": "fp8_e4m3"}),
        "fp8_e4m3",
    ),
    (
        "kv-dtype-drafter",
        Case(image=AWQ, overrides={"kv_cache_dtype": "bfloat16", "drafter_kv_cache_dtype": "fp8"}),
        "the drafter's kv_cache_dtype is fp8",
    ),
    ("drafter-pair", Case(change=cell("models", MODEL, "drafter", "vocab_size", to=32000)), "vocabulary"),
    (
        "drafter-backend",
        Case(model=QWEN, change=cell("profiles", "agentic", "drafter", to="dflash")),
        "serves causal drafters alone",
    ),
    ("drafter-absent", Case(change=cell("profiles", "agentic", "drafter", to="medusa")), "has no drafter 'medusa'"),
    ("drafter-unproven", Case(image=V27, change=cell("profiles", "agentic", "drafter", to="eagle3")), "method eagle3"),
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
    ("v2-model-runner", Case(change=env(VLLM_USE_V2_MODEL_RUNNER="true")), "which the engine cannot read"),
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
        Case(image="2026-09-11-v0.29.0-omni", change=env("aeon-0.29-omni", VLLM_TEST_FORCE_FP8_MARLIN="1")),
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


ALLOWED: dict[str, Case] = {
    "an FP8 cache without a drafter": Case("max-throughput", V27, overrides={"kv_cache_dtype": "fp8"}),
    "an FP8 cache on stock vLLM": Case("stock-baseline", STOCK, overrides={"kv_cache_dtype": "fp8_e5m2"}),
    "an FP8 cache with the drafter on Triton": Case(
        "production", V27, overrides={"kv_cache_dtype": "fp8", "drafter_attention_backend": "triton_attn"}
    ),
    "an FP8 cache with a drafter in BF16": Case(
        "production", V27, overrides={"kv_cache_dtype": "fp8", "drafter_kv_cache_dtype": "bfloat16"}
    ),
    "an NVFP4 cache with a causal drafter": Case(
        "production", V27, overrides={"kv_cache_dtype": "nvfp4"}, change=assisted
    ),
    "V1 where the image bakes it": Case(image=AWQ, change=env("aeon-0.26", VLLM_USE_V2_MODEL_RUNNER="0")),
    "V2 where the image bakes V1": Case(image=AWQ, change=env("aeon-0.26", VLLM_USE_V2_MODEL_RUNNER="1")),
    "the first DFlash image as its maker starts it": Case(
        image="dflash-v2",
        overrides={
            "drafter_attention_backend": "flash_attn",
            "num_speculative_tokens": 15,
            "enable_prefix_caching": True,
        },
    ),
    "draft lengths by load": Case(
        "production", V27, overrides={"num_speculative_tokens_per_batch_size": [[1, 8, 10], [9, 32, 3]]}
    ),
    "a look-up instead of a drafter": Case(
        "production",
        V27,
        change=lambda rows: rows["profiles"]["production"].update(
            speculative_args={"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
        ),
    ),
    "Qwen's drafter on Triton, on the same tags": Case(
        "short-context", V27, QWEN, change=cell("profiles", "short-context", "drafter", to="dflash")
    ),
    "a dense model where it loads and fits": Case("short-context", AWQ, DENSE),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_was_seen_to_run_is_not_refused(name: str) -> None:
    assert [finding.text() for finding in ALLOWED[name].findings() if finding.severity == "fail"] == []


@pytest.mark.parametrize(
    "key",
    [
        *(
            "api_key",
            "api-key",
            "--api-key",
            "--api-key=sk-example",
            "api_key=sk-example",
            "API_KEY",
            "api-k",
            "hf_token",
        ),
        *("model", "--model", "model.x", "served_model_name", "speculative_config", "--speculative-config.method"),
        *("spec_tokens", "spec-model", "speculative_conf", "revision", "config", "-sc", "--speculative_config.model"),
    ],
)
def test_no_spelling_of_a_reserved_argument_passes(key: str) -> None:
    for where in (profile_arg(key, "sk-example"), lambda rows: rows["lines"]["aeon-0.22"]["args"].update({key: "x"})):
        with pytest.raises(FleetError) as refused:
            Case(change=where).findings()
        assert "sk-example" not in refused.value.text()
    with pytest.raises(FleetError) as refused:
        tried(**{key: "sk-example"}).findings()
    assert "sk-example" not in refused.value.text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("additional_config", {"hf_token": "x"}),
        ("model_loader_extra_config", '{"concurrency": 4, "aws": {"secret_access_key": "x"}}'),
        ("kv_transfer_config", {"extra": [{"password": "x"}]}),
        ("download_dir", "https://user:pass@mirror.example/models"),
        ("chat_template", "hf_" + "a" * 30),
    ],
)
def test_a_secret_inside_a_value_is_refused_unseen(name: str, value: Any) -> None:
    with pytest.raises(FleetError) as refused:
        Case(change=profile_arg(name, value)).findings()
    assert refused.value.text().startswith("secret-argument: ")


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "VLLM_API_KEY", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD"]
)
def test_a_secret_is_no_variable(name: str) -> None:
    for change in (env(**{name: "x"}), lambda rows: rows["profiles"]["agentic"]["env"].update({name: "x"})):
        with pytest.raises(FleetError) as refused:
            Case(change=change).findings()
        assert name in refused.value.text()


def test_a_drafter_s_backend_belongs_to_model_method_and_line() -> None:
    def rendered(case: Case) -> object:
        document = CATALOG.model_dump(by_alias=True)
        if case.change:
            case.change(document)
        choice = Choice(case.model, case.image, case.profile, case.hardware)
        return (compile_recipe(Catalog.model_validate(document), choice).speculative or {}).get("attention_backend")

    own = cell("models", MODEL, "drafter", "attention_backends", to={"*": "triton_attn", "aeon-0.23": "flex_attention"})
    assert rendered(Case(image=V27)) == "flash_attn"
    assert rendered(Case(image=UPSTREAM)) == "triton_attn"
    assert rendered(Case(image=V27, change=assisted)) is None
    assert rendered(Case(image=V27, change=own)) == "triton_attn"
    assert rendered(Case(image="2026-06-18-v0.23.0-dflashfix", change=own)) == "flex_attention"
