"""Whatever is asked of the compiler, it yields a recipe that the engine's command line accepts, or a refusal."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkfleet.catalog.contract_table import read_table
from sparkfleet.errors import FleetError
from sparkfleet.release.recipe import SPECULATIVE_KEYS, Choice
from sparkfleet.release.release import compile_release
from sparkfleet.release.rules import Deployment, rule_texts
from sparkfleet.release.unit import docker_run
from sparknode.base.shape import written
from tests.unit.sparkfleet.release import systemd
from tests.unit.sparkfleet.release.combos import CATALOG, rendered
from tests.unit.sparkfleet.release.oracle import accept

IMAGES = sorted(CATALOG.images)
FLAGS = sorted({row["name"] for row in read_table("vllm").arguments})
COMMON = [
    "max_num_seqs", "max_model_len", "gpu_memory_utilization", "max_num_batched_tokens", "kv_cache_dtype", "port",
    "enable_prefix_caching", "attention_backend", "tool_call_parser", "quantization", "tensor_parallel_size", "host",
    "shutdown_timeout", "enforce_eager", "kv_cache_memory_bytes", *SPECULATIVE_KEYS,
]  # fmt: skip
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-4, 2**40),
    st.floats(),
    st.sampled_from([16, 32, 64, 0.5, 0.68, 0.8, 0.85, "256k", "8G", "auto", "bfloat16", "fp8", "nvfp4", "flash_attn"]),
    st.sampled_from(["flex_attention", "triton_attn", "gemma4", "127.0.0.1", "--port", "-1", "", "a b", "$HOME %h \\"]),
    st.text(max_size=8),
    st.lists(st.text(max_size=4), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
OVERRIDES = st.dictionaries(
    st.one_of(st.sampled_from(COMMON), st.sampled_from(FLAGS), st.text(max_size=12)), VALUES, max_size=3
)
CHOICES = st.builds(
    Choice,
    model=st.sampled_from([*CATALOG.models, "unknown"]),
    image_tag=st.sampled_from([*IMAGES, "latest", "2027-01-01-new"]),
    profile=st.sampled_from([*CATALOG.profiles, "unknown"]),
    hardware=st.sampled_from([*CATALOG.hardware]),
    image_line=st.one_of(st.none(), st.sampled_from([*CATALOG.lines, *IMAGES, "unknown"])),
    overrides=OVERRIDES,
)
DEPLOYMENTS = st.builds(
    Deployment,
    api_key_file=st.sampled_from([None, "/etc/sparkfleet/api-key.env"]),
    allow_unauthenticated=st.sampled_from([None, "a test"]),
    terms_accepted=st.booleans(),
    trial=st.booleans(),
)
INJECTIONS: st.SearchStrategy[Literal["gpus", "cdi"]] = st.sampled_from(["gpus", "cdi"])


def check(choice: Choice, deployment: Deployment, injection: Literal["gpus", "cdi"]) -> bool:
    """Compile; return whether there is a release. Both outcomes must be complete."""
    try:
        outcome = compile_release(CATALOG, None, choice, deployment, injection)
    except FleetError as error:
        text = error.text()
        named = [line.split(":")[0] for line in text.splitlines()]
        assert set(named) & rule_texts().keys(), text
        assert "why: " in text, text
        assert "next: " in text, text
        return False
    release = outcome.release
    recipe = outcome.recipe
    words = list(release.container.args[len(recipe.engine.program) :])
    accept(recipe.engine.kind, recipe.contract.basis, words)
    content = {key: value for key, value in written(release).items() if key != "id"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    assert release.id == hashlib.sha256(canonical.encode()).hexdigest()[:16]
    assert isinstance(release.serve.port, int)
    assert isinstance(release.serve.max_model_len, int)
    assert systemd.exec_start(release.unit) == ["/usr/bin/docker", *docker_run(release)[1:]]
    return True


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHOICES, DEPLOYMENTS, INJECTIONS)
def test_anything_at_all(choice: Choice, deployment: Deployment, injection: Literal["gpus", "cdi"]) -> None:
    check(choice, deployment, injection)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(rendered())), OVERRIDES, INJECTIONS)
def test_overrides_of_what_works(
    names: tuple[str, str, str], overrides: dict[str, Any], injection: Literal["gpus", "cdi"]
) -> None:
    profile, image, model = names
    check(Choice(model, image, profile, "gb10", overrides=overrides), Deployment(trial=True), injection)


def test_every_combination_without_overrides_is_checked_too() -> None:
    for profile, image, model in rendered():
        assert check(Choice(model, image, profile, "gb10"), Deployment(trial=True), "gpus")
