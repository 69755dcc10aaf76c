"""The rules that a recipe must keep: each a small function over plain data, with its reason in `catalog/rules.yaml`.

A rule yields `(found, expected)` pairs; the id, severity, reason, source and remedy come from the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from sparkfleet.catalog import ROOT, Row
from sparkfleet.errors import CatalogError, nearest
from sparkfleet.recipe import Recipe

Severity = Literal["fail", "warn", "info"]
Problem = tuple[str, str]

METHOD_HINTS = ("dflash", "eagle3", "dspark")


class RuleText(Row):
    severity: Severity
    why: str
    source: str
    remedy: str


@dataclass(frozen=True)
class Deployment:
    """What the host's owner has written down, as far as rules ask for it."""

    api_key_file: str | None = None
    allow_unauthenticated: str | None = None
    terms_accepted: bool = False
    trial: bool = False


@dataclass(frozen=True)
class Finding:
    rule: str
    severity: Severity
    found: str
    expected: str
    why: str
    source: str
    remedy: str

    def text(self) -> str:
        """Return the finding as lines for a person."""
        lines = [f"{self.rule}: {self.found}"]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        lines += [f"  why: {self.why} [{self.source}]", f"  next: {self.remedy}"]
        return "\n".join(lines)


Check = Callable[[Recipe, Deployment], Iterator[Problem]]
CHECKS: dict[str, Check] = {}


def rule(rule_id: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[rule_id] = check
        return check

    return register


@cache
def rule_texts(path: Path = ROOT / "catalog" / "rules.yaml") -> dict[str, RuleText]:
    """Return reason, source and remedy of every rule; raises CatalogError when a rule has none."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        texts = {rule_id: RuleText.model_validate(row) for rule_id, row in document["rules"].items()}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CatalogError(f"{path}: {where}: {first['msg']}", ", ".join(RuleText.model_fields)) from None
    for rule_id in CHECKS.keys() ^ texts.keys():
        raise CatalogError(f"{path}: rule '{rule_id}' has a check or a text, not both", "one of each")
    return texts


def judge(recipe: Recipe, deployment: Deployment) -> list[Finding]:
    """Apply every rule; the failures come first."""
    findings = []
    for rule_id, check in CHECKS.items():
        text = rule_texts()[rule_id]
        for found, expected in check(recipe, deployment):
            severity = text.severity
            if rule_id in ("exposure", "terms") and deployment.trial:
                severity = "warn"
            findings.append(Finding(rule_id, severity, found, expected, text.why, text.source, text.remedy))
    order: dict[Severity, int] = {"fail": 0, "warn": 1, "info": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def failures(recipe: Recipe, deployment: Deployment) -> list[Finding]:
    return [finding for finding in judge(recipe, deployment) if finding.severity == "fail"]


def _number(recipe: Recipe, key: str) -> float | None:
    value = recipe.args.get(key)
    if isinstance(value, str):
        scale = {"k": 1000, "m": 1000**2, "g": 1000**3}.get(value[-1:].lower())
        digits = value[:-1] if scale else value
        try:
            return float(digits) * (scale or 1)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@rule("drafter-backend")
def _drafter_backend(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    support = recipe.line.drafter
    if recipe.speculative is None or support is None:
        return
    backend = recipe.speculative.get("attention_backend")
    if backend != support.backend:
        reason = support.refused_backends.get(str(backend), "not the one that this image runs")
        tag = recipe.choice.image_tag
        yield f"the drafter's attention backend is {backend} on image {tag}: {reason}", support.backend


@rule("drafter-unsupported")
def _drafter_unsupported(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.profile.speculative and recipe.model.drafter and recipe.line.drafter is None:
        yield (
            f"profile {recipe.choice.profile} uses the drafter, and image {recipe.choice.image_tag} cannot run it",
            "an image with a drafter, or a profile without",
        )


@rule("drafter-absent")
def _drafter_absent(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.profile.speculative and recipe.model.drafter is None:
        yield f"model {recipe.choice.model} has no drafter", ""


@rule("drafter-pair")
def _drafter_pair(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    drafter, target = recipe.model.drafter, recipe.model.artefact
    if drafter is None or recipe.speculative is None:
        return
    pairs = (
        ("hidden size", drafter.hidden_size, target.hidden_size),
        ("vocabulary", drafter.vocab_size, target.vocab_size),
        ("number of target layers", drafter.num_target_layers, target.num_hidden_layers),
    )
    for name, ours, theirs in pairs:
        if ours is not None and theirs is not None and ours != theirs:
            yield f"{name} of the drafter is {ours}, of the target {theirs}", "equal"


@rule("drafter-path")
def _drafter_path(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.speculative is None:
        return
    path, method = str(recipe.speculative["model"]), str(recipe.speculative["method"])
    for hint in METHOD_HINTS:
        if hint in path.lower() and hint != method:
            yield (
                f"drafter path {path} makes vLLM choose method {hint} instead of {method}",
                f"a path without '{hint}'",
            )


@rule("speculative-method")
def _speculative_method(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.line.engine != "vllm" or recipe.speculative is None:
        return
    method = str(recipe.speculative["method"])
    if method not in recipe.contract.spec_methods:
        yield f"speculative method {method}", f"one of {', '.join(sorted(recipe.contract.spec_methods))}"


@rule("speculative-tokens")
def _speculative_tokens(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    drafter = recipe.model.drafter
    if recipe.speculative is None or drafter is None:
        return
    tokens = recipe.speculative["num_speculative_tokens"]
    highest = drafter.block_size - 1 if drafter.block_size else None
    if tokens < 1 or (highest is not None and tokens > highest):
        yield f"num_speculative_tokens is {tokens}", f"1 to {highest}" if highest else "1 or more"


@rule("prefix-caching")
def _prefix_caching(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    support = recipe.line.drafter
    if recipe.speculative is None or support is None or support.prefix_caching == "safe":
        return
    if recipe.args.get("enable_prefix_caching") is not False:
        yield (
            f"prefix caching is on with the drafter on image {recipe.choice.image_tag}",
            "enable_prefix_caching: false (vLLM turns it on when the flag is left out)",
        )


@rule("kv-dtype-drafter")
def _kv_dtype_drafter(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    drafter = recipe.model.drafter
    if recipe.speculative is None or drafter is None or drafter.causal:
        return
    allowed = recipe.line.kv_cache_dtypes_with_drafter
    for where, value in (
        ("kv_cache_dtype", recipe.args.get("kv_cache_dtype", "auto")),
        ("the drafter's kv_cache_dtype", recipe.speculative.get("kv_cache_dtype", "auto")),
    ):
        if value not in allowed:
            yield f"{where} is {value} with the {drafter.method} drafter", f"one of {', '.join(allowed)}"


@rule("kv-dtype-image")
def _kv_dtype_image(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = recipe.args.get("kv_cache_dtype", "auto")
    if value not in recipe.line.kv_cache_dtypes:
        allowed = ", ".join(recipe.line.kv_cache_dtypes)
        yield f"kv_cache_dtype is {value} on image {recipe.choice.image_tag}", f"one of {allowed}"


@rule("memory-utilization-missing")
def _memory_missing(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.line.engine == "vllm" and recipe.args.get("gpu_memory_utilization") is None:
        also = " although kv_cache_memory_bytes is set" if "kv_cache_memory_bytes" in recipe.args else ""
        yield (
            f"gpu_memory_utilization is not set{also}",
            f"at most {recipe.hardware.limits.memory_utilization_advised:g}",
        )


@rule("memory-utilization-limit")
def _memory_limit(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = _number(recipe, "gpu_memory_utilization")
    limit = recipe.hardware.limits.memory_utilization
    if value is not None and not 0 < value <= limit:
        yield f"gpu_memory_utilization is {value:g}", f"over 0 and at most {limit:g}"


@rule("memory-utilization-high")
def _memory_high(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = _number(recipe, "gpu_memory_utilization")
    limits = recipe.hardware.limits
    if value is not None and limits.memory_utilization_advised < value <= limits.memory_utilization:
        yield f"gpu_memory_utilization is {value:g}", f"at most {limits.memory_utilization_advised:g}"


@rule("batched-tokens")
def _batched_tokens(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = _number(recipe, "max_num_batched_tokens")
    limit = recipe.hardware.limits.batched_tokens
    if limit is not None and value is not None and value > limit:
        yield f"max_num_batched_tokens is {value:.0f}", f"at most {limit}"


@rule("batch-order")
def _batch_order(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    tokens, sequences = _number(recipe, "max_num_batched_tokens"), _number(recipe, "max_num_seqs")
    if sequences is not None and sequences < 1:
        yield f"max_num_seqs is {sequences:.0f}", "1 or more"
    if tokens is not None and sequences is not None and tokens < sequences:
        yield f"max_num_batched_tokens {tokens:.0f} is under max_num_seqs {sequences:.0f}", "at least as many"


@rule("drafter-concurrency")
def _drafter_concurrency(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    support = recipe.line.drafter
    if recipe.speculative is None or support is None:
        return
    sequences = _number(recipe, "max_num_seqs")
    limit = support.concurrency_limit or recipe.hardware.limits.drafter_concurrency
    if sequences is None:
        yield "max_num_seqs is not set with a drafter (vLLM takes 256)", f"at most {limit}"
    elif sequences > limit:
        note = f" ({support.concurrency_note})" if support.concurrency_note else ""
        yield f"max_num_seqs is {sequences:.0f} on image {recipe.choice.image_tag}{note}", f"at most {limit}"


@rule("body-attention")
def _body_attention(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    needed = recipe.model.attention_backend
    found = recipe.args.get("attention_backend")
    if needed is not None and recipe.line.engine == "vllm" and str(found).lower() != needed:
        yield f"attention_backend is {found} for model {recipe.choice.model}", needed


@rule("attention-backend-unknown")
def _attention_unknown(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.line.engine != "vllm":
        return
    known = sorted(recipe.contract.attention_backends)
    values: list[Any] = [recipe.args.get("attention_backend")]
    if recipe.speculative is not None:
        values.append(recipe.speculative.get("attention_backend"))
    for value in values:
        if value is not None and str(value).upper() not in known:
            yield (
                f"attention backend '{value}' is unknown{nearest(str(value).upper(), known)}",
                f"one of {', '.join(known)}",
            )


@rule("marlin")
def _marlin(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.env.get("VLLM_TEST_FORCE_FP8_MARLIN", "0") not in ("0", ""):
        yield "VLLM_TEST_FORCE_FP8_MARLIN forces the Marlin kernels", "0"
    if recipe.env.get("VLLM_NVFP4_GEMM_BACKEND") == "marlin":
        yield "VLLM_NVFP4_GEMM_BACKEND is marlin", "flashinfer-cutlass"
    for key in ("linear_backend", "moe_backend"):
        if recipe.args.get(key) == "marlin":
            yield f"{key} is marlin", "flashinfer_cutlass, cutlass or auto"


@rule("env-removed")
def _env_removed(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    for name in recipe.env:
        if name in recipe.line.env_removed:
            flag = recipe.line.env_removed[name]
            yield (
                f"{name} is gone from vLLM {recipe.line.engine_version}",
                f"the flag {flag} instead" if flag else "no such variable",
            )


@rule("env-forbidden")
def _env_forbidden(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    for name, reason in recipe.line.env_forbidden.items():
        if name in recipe.env:
            yield f"{name}={recipe.env[name]} on image {recipe.choice.image_tag}: {reason}", "not set"


@rule("env-unknown")
def _env_unknown(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.line.engine != "vllm":
        return
    for name in recipe.env:
        if name.startswith("VLLM_") and name not in recipe.contract.env and name not in recipe.line.env_removed:
            yield f"{name} is unknown to vLLM {recipe.contract.recorded_version}", ""


@rule("flag-unknown")
def _flag_unknown(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.line.engine != "vllm":
        return
    for key in recipe.args:
        if key not in recipe.contract.flags:
            known = list(recipe.contract.flags)
            yield (
                f"--{key.replace('_', '-')} is unknown to vLLM {recipe.contract.recorded_version}{nearest(key, known)}",
                "an argument of vllm serve, written out in full",
            )


@rule("flag-duplicate")
def _flag_duplicate(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    options = [
        flag.option for key in recipe.args if (flag := recipe.contract.flags.get(key)) and recipe.line.engine == "vllm"
    ]
    for option in sorted({option for option in options if options.count(option) > 1}):
        yield f"{option} is given twice", "once"


@rule("flag-value")
def _flag_value(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.line.engine != "vllm":
        return
    for key, value in recipe.args.items():
        flag = recipe.contract.flags.get(key)
        problem = flag.problem_with(value) if flag else None
        if problem:
            yield f"{key} {problem}", ""


def _parser_problem(recipe: Recipe, key: str, needed: str | None, known: frozenset[str]) -> Iterator[Problem]:
    value = recipe.args.get(key)
    if value is None:
        if key == "tool_call_parser" and recipe.args.get("enable_auto_tool_choice"):
            yield "enable_auto_tool_choice has no tool_call_parser", needed or "a parser"
        return
    if value not in known:
        yield (
            f"{key} '{value}' is unknown{nearest(str(value), sorted(known))}",
            f"one of {', '.join(sorted(known))}",
        )
    elif needed is not None and value != needed:
        yield f"{key} is {value} for model {recipe.choice.model}", needed


@rule("tool-parser")
def _tool_parser(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.line.engine == "vllm":
        yield from _parser_problem(
            recipe, "tool_call_parser", recipe.model.tool_call_parser, recipe.contract.tool_parsers
        )


@rule("reasoning-parser")
def _reasoning_parser(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.line.engine == "vllm":
        yield from _parser_problem(
            recipe, "reasoning_parser", recipe.model.reasoning_parser, recipe.contract.reasoning_parsers
        )


@rule("quantization")
def _quantization(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    found, needed = recipe.args.get("quantization"), recipe.model.quantization
    if found != needed:
        yield f"quantization is {found} for model {recipe.choice.model}", str(needed or "not set")


@rule("context-length")
def _context_length(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = _number(recipe, "max_model_len")
    if value is not None and value > recipe.model.max_model_len:
        yield f"max_model_len is {value:.0f}", f"at most {recipe.model.max_model_len}"


@rule("tensor-parallel")
def _tensor_parallel(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        value = _number(recipe, key)
        gpus = recipe.hardware.limits.gpus
        if value is not None and not 1 <= value <= gpus:
            yield f"{key} is {value:.0f} on {gpus} GPU", f"at most {gpus}"


@rule("architecture")
def _architecture(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.hardware.architecture not in recipe.line.architectures:
        yield (
            f"image {recipe.choice.image_tag} is built for {', '.join(recipe.line.architectures)}, and hardware "
            f"{recipe.choice.hardware} is {recipe.hardware.architecture}",
            f"an image built for {recipe.hardware.architecture}",
        )


@rule("image-state")
def _image_state(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.image.state in ("rollback", "superseded"):
        yield f"image {recipe.choice.image_tag} is a {recipe.image.state} image", "current"


@rule("image-undeclared")
def _image_undeclared(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.choice.image_line is not None:
        yield f"image {recipe.choice.image_tag} is treated like {recipe.choice.image_line}", ""


@rule("model-unconfirmed")
def _model_unconfirmed(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if not recipe.model.repo_confirmed:
        yield f"model {recipe.choice.model}: repository {recipe.model.repo} is unconfirmed", ""


@rule("stop-order")
def _stop_order(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    timing = recipe.profile.timing
    inner = _number(recipe, "shutdown_timeout") or 0
    margin = timing.stop_margin_s
    if inner + margin > timing.docker_stop_s or timing.docker_stop_s + margin > timing.unit_stop_s:
        yield (
            f"stop timeouts: engine {inner:.0f} s, docker {timing.docker_stop_s} s, unit {timing.unit_stop_s} s",
            f"each at least {margin} s more than the one before",
        )


@rule("exposure")
def _exposure(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    host = recipe.args.get("host")
    local = host in ("127.0.0.1", "localhost", "::1")
    if not local and not deployment.api_key_file and not deployment.allow_unauthenticated:
        kind = "an uncensored model" if recipe.model.uncensored else "a model"
        yield (
            f"{kind} would listen on {host or 'all addresses'} without an API key",
            "a key, or a written decision",
        )


@rule("terms")
def _terms(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    if recipe.model.terms and not deployment.terms_accepted:
        yield f"the terms of {recipe.model.repo} ({recipe.model.licence}) are not accepted", "terms_accepted"
