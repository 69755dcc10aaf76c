"""Rules about the command line itself: flags, values, parsers and variables that this engine version has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkfleet.catalog.arguments import read_arguments
from sparkfleet.errors import nearest
from sparkfleet.release.rules.book import Deployment, Problem

if TYPE_CHECKING:
    from sparkfleet.release.recipe import Recipe


def engine(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    """A profile of another engine: judged by this engine's rules, all of it would be wrong."""
    wanted, runs = recipe.profile.engine, recipe.line.engine
    if wanted != runs:
        profile, tag = recipe.choice.profile, recipe.choice.image_tag
        found = f"profile {profile} has arguments of {wanted}, and image {tag} runs {runs}"
        yield "profile-engine", found, f"a profile for {runs}"


def flags(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    """Flags that the recorded command line has, and values without which the engine is not found."""
    contract, args = recipe.contract, recipe.args
    yield from read_arguments(contract, recipe.arguments).problems
    if not contract.exact:
        doubtful = sorted((args.keys() | recipe.env.keys()) & contract.doubtful)
        only = f"; only one of them has {', '.join(doubtful)}" if doubtful else ""
        found = f"the command line of {contract.engine} {contract.version} was read from {' and '.join(contract.basis)}"
        yield "contract-inexact", f"{found}{only}", ""
    port = recipe.number("port")
    if port is None or not 1 <= port <= 65535:
        yield "required-argument", f"port is {args.get('port')}", "1 to 65535"
    if recipe.engine.kind == "vllm" and recipe.number("max_model_len") is None:
        yield "required-argument", f"max_model_len is {args.get('max_model_len')}", "a number"
    if not recipe.engine.deployable:
        yield "engine-undeployable", f"image {recipe.choice.image_tag} runs {recipe.engine.kind}", "vllm"


def of_model(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    """Arguments that the model's row or the engine's version decides."""
    args, model, contract, for_model = recipe.args, recipe.model, recipe.contract, f"for model {recipe.choice.model}"
    is_vllm = recipe.line.engine == "vllm"
    attention, needed = recipe.chosen("attention_backend"), model.attention_backend
    if is_vllm and needed is not None and str(attention).lower() != needed:
        yield "body-attention", f"attention_backend is {attention} {for_model}", needed
    known = sorted(contract.attention_backends)
    for value in (attention, (recipe.speculative or {}).get("attention_backend")) if is_vllm else ():
        if value is not None and str(value).upper() not in known:
            found = f"attention backend '{value}' is unknown{nearest(str(value).upper(), known)}"
            yield "attention-backend-unknown", found, f"one of {', '.join(known)}"
    if recipe.env.get("VLLM_TEST_FORCE_FP8_MARLIN", "0") not in ("0", ""):
        yield "marlin", "VLLM_TEST_FORCE_FP8_MARLIN forces the Marlin kernels", "0"
    if "marlin" in recipe.env.get("VLLM_NVFP4_GEMM_BACKEND", ""):
        yield "marlin", "VLLM_NVFP4_GEMM_BACKEND is marlin", "flashinfer-cutlass"
    for key in ("linear_backend", "moe_backend"):
        for value in recipe.forms(key):
            if "marlin" in str(value).lower():
                yield "marlin", f"{key} is {value}", "flashinfer_cutlass, cutlass or auto"
    drafting = str((recipe.speculative or {}).get("moe_backend"))
    if "marlin" in drafting.lower():
        yield "marlin", f"moe_backend of the drafter is {drafting}", "not set"
    yield from _values(recipe)
    if is_vllm:
        tools = _parser(recipe, "tool_call_parser", model.tool_call_parser, contract.tool_parsers)
        yield from (("tool-parser", *problem) for problem in tools)
        thinking = _parser(recipe, "reasoning_parser", model.reasoning_parser, contract.reasoning_parsers)
        yield from (("reasoning-parser", *problem) for problem in thinking)
        weights = args.get("quantization")
        if weights != model.quantization:
            yield "quantization", f"quantization is {weights} {for_model}", str(model.quantization or "not set")
        elif weights is not None and weights not in contract.quantization:
            found = f"quantization {weights} is unknown to {contract}"
            yield "quantization", found, ", ".join(sorted(contract.quantization))
    context = recipe.number(recipe.engine.context_argument)
    if context is not None and not 1 <= context <= model.max_model_len:
        yield "context-length", f"{recipe.engine.context_argument} is {context}", f"1 to {model.max_model_len}"


def _values(recipe: Recipe) -> Iterator[Problem]:
    """Values that the parser takes and the engine then dies of, or was seen to harm a host with."""
    args, engine = recipe.args, recipe.engine
    for place, name in engine.same_choice.items():
        written, value = args.get(name), recipe.within(place)
        if written is not None and value is not None:
            said = f"{place} is {value}, and {name} is {written}"
            yield "argument-twice", said, f"{name} alone"
    for name, reasons in engine.refused_values.items():
        if reason := reasons.get(str(recipe.chosen(name)).lower()):
            yield "value-refused", f"{name} is {recipe.chosen(name)}: {reason}", "not set"
    for name, reasons in engine.doubtful_values.items():
        if reason := reasons.get(str(recipe.chosen(name)).lower()):
            yield "value-doubtful", f"{name} is {recipe.chosen(name)}: {reason}", "not set"
    for name, known in engine.known_values.items():
        value = recipe.chosen(name)
        if value is not None and str(value).lower() not in known:
            said = f"{name} is {value}{nearest(str(value).lower(), list(known))}"
            yield "value-unknown", said, f"one of {', '.join(known)}"


def _parser(recipe: Recipe, key: str, needed: str | None, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    value, model = recipe.args.get(key), recipe.choice.model
    if value is None:
        if key == "tool_call_parser" and recipe.args.get("enable_auto_tool_choice"):
            yield "enable_auto_tool_choice has no tool_call_parser", needed or "a parser"
        elif needed is not None:
            yield f"{key} is not set for model {model}", needed
    elif value not in known:
        yield f"{key} '{value}' is unknown{nearest(str(value), sorted(known))}", f"one of {', '.join(sorted(known))}"
    elif needed is not None and value != needed:
        yield f"{key} is {value} for model {model}", needed


def variables(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    env, line, tag = recipe.env, recipe.line, recipe.choice.image_tag
    for name, value in env.items():
        if name in line.env_removed:
            flag = line.env_removed[name]
            instead = f"the flag {flag} instead" if flag else "no such variable"
            # Switched off, it asked for what happens without it.
            rule = "env-ignored" if value in ("", "0") else "env-removed"
            yield rule, f"{name}={value}: gone from vLLM {line.engine_version}", instead
    if names := [name for name in env if name in line.env_deprecated]:
        found = f"{', '.join(names)}: deprecated in vLLM {line.engine_version}"
        yield "env-deprecated", found, ", ".join(line.env_deprecated[name] for name in names)
    for name, reason in line.env_forbidden.items():
        if name in env:
            yield "env-forbidden", f"{name}={env[name]} on image {tag}: {reason}", "not set"
    known = recipe.contract.env
    for name in env if line.engine == "vllm" else ():
        if name.startswith("VLLM_") and name not in known and name not in line.env_removed:
            yield "env-unknown", f"{name} is unknown to {recipe.contract}{nearest(name, sorted(known))}", ""
    if problem := _runner(recipe, env.get("VLLM_USE_V2_MODEL_RUNNER")):
        yield "v2-model-runner", *problem


def _runner(recipe: Recipe, value: str | None) -> tuple[str, str] | None:
    """V1 or V2: only what a drafter with mixed windows cannot run on, and what the engine cannot read."""
    policy, image = recipe.line.v2_model_runner, f"on image {recipe.choice.image_tag}"
    if value is not None and value not in ("0", "1"):
        return f"VLLM_USE_V2_MODEL_RUNNER is {value!r} {image}, which the engine cannot read", "0, 1 or not set"
    if recipe.drafter is None or recipe.drafter.causal:
        return None
    if policy == "must-set" and value != "1":
        return f"VLLM_USE_V2_MODEL_RUNNER is {value or 'not set'} {image}, which runs this drafter on V2 alone", "1"
    if policy == "default" and value == "0":
        return f"VLLM_USE_V2_MODEL_RUNNER=0 {image}, which runs this drafter on V2 alone", "not set"
    return None
