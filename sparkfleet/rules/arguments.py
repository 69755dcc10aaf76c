"""Rules about the command line itself: flags, values, parsers and variables that this engine version has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparkfleet.arguments import read_arguments
from sparkfleet.errors import nearest
from sparkfleet.rules.book import Deployment, FamilyProblem, Problem, rule, rules

if TYPE_CHECKING:
    from sparkfleet.recipe import Recipe


@rules("flag-unknown", "flag-abbreviated", "flag-duplicate", "flag-value")
def _flags(recipe: Recipe, _: Deployment) -> Iterator[FamilyProblem]:
    yield from read_arguments(recipe.contract, recipe.arguments).problems


@rule("contract-inexact")
def _contract_inexact(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    contract = recipe.contract
    if contract.exact:
        return
    doubtful = sorted((recipe.args.keys() | recipe.env.keys()) & contract.doubtful)
    only = f"; only one of them has {', '.join(doubtful)}" if doubtful else ""
    recorded = " and ".join(contract.basis)
    yield f"the command line of {contract.engine} {contract.version} was read from {recorded}{only}", ""


@rule("required-argument")
def _required(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    port = recipe.number("port")
    if port is None or not 1 <= port <= 65535:
        yield f"port is {recipe.args.get('port')}", "1 to 65535"
    if recipe.engine.kind == "vllm" and recipe.number("max_model_len") is None:
        yield f"max_model_len is {recipe.args.get('max_model_len')}", "a number"


@rule("profile-engine")
def _profile_engine(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.profile.engine != recipe.line.engine:
        yield (
            f"profile {recipe.choice.profile} has arguments of {recipe.profile.engine}, and image "
            f"{recipe.choice.image_tag} runs {recipe.line.engine}",
            f"a profile for {recipe.line.engine}",
        )


@rule("engine-undeployable")
def _engine_undeployable(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if not recipe.engine.deployable:
        yield f"image {recipe.choice.image_tag} runs {recipe.engine.kind}", "vllm"


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
    if "marlin" in recipe.env.get("VLLM_NVFP4_GEMM_BACKEND", ""):
        yield "VLLM_NVFP4_GEMM_BACKEND is marlin", "flashinfer-cutlass"
    for key in ("linear_backend", "moe_backend"):
        if "marlin" in str(recipe.args.get(key)):
            yield f"{key} is {recipe.args[key]}", "flashinfer_cutlass, cutlass or auto"


def _parser_problem(recipe: Recipe, key: str, needed: str | None, known: frozenset[str]) -> Iterator[Problem]:
    value = recipe.args.get(key)
    if value is None:
        if key == "tool_call_parser" and recipe.args.get("enable_auto_tool_choice"):
            yield "enable_auto_tool_choice has no tool_call_parser", needed or "a parser"
        elif needed is not None:
            yield f"{key} is not set for model {recipe.choice.model}", needed
    elif value not in known:
        yield f"{key} '{value}' is unknown{nearest(str(value), sorted(known))}", f"one of {', '.join(sorted(known))}"
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
    if recipe.line.engine == "vllm" and found != needed:
        yield f"quantization is {found} for model {recipe.choice.model}", str(needed or "not set")
    elif recipe.line.engine == "vllm" and found is not None and found not in recipe.contract.quantization:
        yield f"quantization {found} is unknown to {recipe.contract}", ", ".join(sorted(recipe.contract.quantization))


@rule("context-length")
def _context_length(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = recipe.number(recipe.engine.context_argument)
    if value is not None and not 1 <= value <= recipe.model.max_model_len:
        yield f"{recipe.engine.context_argument} is {value}", f"1 to {recipe.model.max_model_len}"


@rule("env-removed")
def _env_removed(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    for name in recipe.env:
        if name in recipe.line.env_removed:
            flag = recipe.line.env_removed[name]
            yield (
                f"{name} is gone from vLLM {recipe.line.engine_version}",
                f"the flag {flag} instead" if flag else "no such variable",
            )


@rule("env-deprecated")
def _env_deprecated(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    names = [name for name in recipe.env if name in recipe.line.env_deprecated]
    if names:
        flags = ", ".join(recipe.line.env_deprecated[name] for name in names)
        yield f"{', '.join(names)}: deprecated in vLLM {recipe.line.engine_version}", flags


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
            yield f"{name} is unknown to {recipe.contract}{nearest(name, sorted(recipe.contract.env))}", ""


@rule("v2-model-runner")
def _v2_runner(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = recipe.env.get("VLLM_USE_V2_MODEL_RUNNER")
    policy, tag = recipe.line.v2_model_runner, recipe.choice.image_tag
    if policy == "baked-off" and value is not None:
        yield f"VLLM_USE_V2_MODEL_RUNNER={value} on image {tag}, which sets it to 0 for its own drafter path", "not set"
    elif recipe.speculative is None:
        return
    elif policy == "must-set" and value != "1":
        yield f"VLLM_USE_V2_MODEL_RUNNER is {value or 'not set'} on image {tag}", "1"
    elif policy in ("automatic", "default") and value == "0":
        yield f"VLLM_USE_V2_MODEL_RUNNER=0 on image {tag}, which chooses the runner itself", "not set"
