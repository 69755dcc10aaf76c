"""Flags in all the spellings that vLLM's own parser merges, and the speculative config in all its forms."""

from __future__ import annotations

import json

import pytest

from sparkfleet.errors import SettingsError
from sparkfleet.interop.vllm_words import as_vllm_reads, speculation_of
from tests.unit.sparkfleet.interop.asking import DRAFTER, IMAGE, ask, given, refused

JSON_CONFIG = {"method": "dflash", "model": DRAFTER, "num_speculative_tokens": 8}


# What the parser gets, and what it hands to argparse.
REWRITTEN = [
    (["m", "--max_model_len", "4096"], ["m", "--max-model-len", "4096"]),
    (["m", "--max_model_len=4096"], ["m", "--max-model-len=4096"]),
    (["m", "-tp", "2", "-q", "awq"], ["m", "-tp", "2", "-q", "awq"]),
    (["m", "-O3"], ["m", "--optimization-level", "3"]),
    (["m", "-O=3"], ["m", "--optimization-level", "3"]),
    (["m", "-O", "3"], ["m", "--optimization-level", "3"]),
    (["--port", "1", "--model", "m"], ["m", "--port", "1"]),
    (["--port", "1", "--model=m"], ["m", "--port", "1"]),
    (["m", "--a_b.c", "1", "--x", "y"], ["m", "--x", "y", "--a-b", '{"c": 1}']),
    (["m", "--a-b.c_d=x", "--a-b.e.f=true"], ["m", "--a-b", '{"c_d": "x", "e": {"f": true}}']),
    (["m", "-cc.mode", "3", "-cc.cudagraph_mode=NONE"], ["m", "-cc", '{"mode": 3, "cudagraph_mode": "NONE"}']),
    (["m", "--a.size", "4k", "--a.big", "1K"], ["m", "--a", '{"size": 4000, "big": 1024}']),
    (["m", "--a.list+", "x,y", "--a.list+=z"], ["m", "--a", '{"list": ["x", "y", "z"]}']),
    (["m", "--a.list", "[1]", "--a.list", "[2]"], ["m", "--a", '{"list": [1, 2]}']),
    (["m", "--host", "0.0.0.0", "--a=1.5"], ["m", "--host", "0.0.0.0", "--a=1.5"]),
    (["m", "--served_model_name", "a_b"], ["m", "--served-model-name", "a_b"]),
]


@pytest.mark.parametrize(("words", "expected"), REWRITTEN)
def test_words_are_rewritten_as_vllm_rewrites_them(words: list[str], expected: list[str]) -> None:
    assert as_vllm_reads(words) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m", "--a.b", "1", "--a.b", "2"], "--a.b is given twice"),
        (["m", "--a.b", "1", "--a.b.c", "2"], "given beside a value for b"),
        (["m", "--a.b"], "--a.b has no value"),
        (["m", "--config", "x.yaml"], "--config reads arguments from a file"),
        (["m", "--config=x.yaml"], "--config reads arguments from a file"),
    ],
)
def test_what_vllm_would_lose_in_silence_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        as_vllm_reads(words)


@pytest.mark.parametrize(
    "flags",
    [
        f"--speculative-config '{json.dumps(JSON_CONFIG)}'",
        f"--speculative_config '{json.dumps(JSON_CONFIG)}'",
        f"--speculative-config='{json.dumps(JSON_CONFIG)}'",
        f"--speculative-config '{json.dumps(JSON_CONFIG).replace('_', '-').replace('num-spec', 'num_spec')}'",
        f"-sc '{json.dumps(JSON_CONFIG)}'",
        f"--speculative_config.method dflash --speculative_config.model {DRAFTER}"
        " --speculative_config.num_speculative_tokens 8",
        f"--speculative-config.num_speculative_tokens=8 --speculative-config.model={DRAFTER}"
        " --speculative-config.method=dflash",
        f"--spec-method dflash --spec-model {DRAFTER} --spec-tokens 8",
        f"--spec_tokens=8 --spec_model={DRAFTER} --spec_method=dflash",
        f'--spec-tokens 8 --speculative-config \'{{"method": "dflash", "model": "{DRAFTER}"}}\'',
    ],
)
def test_a_drafter_is_recognised_in_every_form(flags: str) -> None:
    image = "ghcr.io/aeon-7/aeon-vllm-ultimate:2026-08-16-v0.27.1"
    imported = ask(f"docker run {image} vllm serve AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4 --port 8000 {flags}")
    assert imported.row["speculative"] is True
    assert imported.row["speculative_args"] == {"num_speculative_tokens": 8}
    assert not {key for key in imported.row["args"] if "spec" in key}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--spec-tokens 8 --speculative-config '{\"num_speculative_tokens\":4}'", "--spec-tokens is given beside"),
        ("--speculative-config 10", "takes JSON"),
        (
            '--speculative-config \'{"method":"dflash","model":"other/drafter"}\'',
            "the model's drafter in the catalogue",
        ),
        ("--spec-method eagle3 --spec-model other/eagle", "the model's drafter in the catalogue"),
    ],
)
def test_another_speculation_than_the_catalogues_is_refused(flags: str, said: str) -> None:
    image = "ghcr.io/aeon-7/aeon-vllm-ultimate:2026-08-16-v0.27.1"
    assert said in refused(f"docker run {image} vllm serve AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4 {flags}")


@pytest.mark.parametrize(
    ("model", "method", "name"),
    [("google/gemma-4-26B-A4B-it-assistant", "mtp", "assistant"), ("/srv/eagle", "eagle3", "eagle3")],
)
def test_another_drafter_of_the_model_is_chosen_by_its_name(model: str, method: str, name: str) -> None:
    image = "ghcr.io/aeon-7/aeon-vllm-ultimate:2026-08-16-v0.27.1"
    mount = "/srv/RedHatAI/gemma-4-26B-A4B-it-speculator.eagle3:/srv/eagle"
    imported = ask(
        f"docker run -v {mount} {image} vllm serve AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4 --port 8000"
        f" --spec-method {method} --spec-model {model} --spec-tokens 2"
    )
    assert imported.row["drafter"] == name
    assert imported.row["speculative_args"] == {"num_speculative_tokens": 2}


def test_a_model_that_is_not_known_may_draft_with_its_own_heads() -> None:
    imported = ask("vllm serve Qwen/Some-Model --port 8000 --spec-method mtp --spec-tokens 2")
    assert imported.row["speculative_args"] == {"method": "mtp", "num_speculative_tokens": 2}
    assert "drafts without a drafter of its own" in "\n".join(imported.notes)


def test_a_drafter_of_an_unknown_model_is_named_in_the_refusal() -> None:
    text = refused("vllm serve some/model --spec-method eagle3 --spec-model other/eagle")
    assert "the drafter other/eagle, and the catalogue has none for some/model" in text


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (
            "--limit-mm-per-prompt.image 2 --limit-mm-per-prompt.video 0",
            "limit_mm_per_prompt",
            {"image": 2, "video": 0},
        ),
        ("--limit_mm_per_prompt.image=2", "limit_mm_per_prompt", {"image": 2}),
        ("-cc.cudagraph_mode NONE -cc.mode=3", "compilation_config", {"cudagraph_mode": "NONE", "mode": 3}),
        ("--compilation-config '{\"mode\": 3}'", "compilation_config", {"mode": 3}),
    ],
)
def test_a_json_argument_keeps_every_key(flags: str, key: str, value: object) -> None:
    assert json.loads(given(ask(f"docker run {IMAGE} vllm serve /models/gemma4 {flags}"))[key]) == value


@pytest.mark.parametrize("flags", ["-cc.mode 3 --compilation-config '{}'", "--compilation-config.mode 3 -cc.level 1"])
def test_a_json_argument_in_two_forms_is_refused_since_vllm_drops_one(flags: str) -> None:
    assert "flag-duplicate" in refused(f"docker run {IMAGE} vllm serve /models/gemma4 {flags}")


def test_short_flags_take_the_place_of_an_own_config() -> None:
    values = {"spec_method": "ngram", "spec_tokens": 4, "port": 8000}
    assert speculation_of(values) == {"method": "ngram", "num_speculative_tokens": 4}
    assert values == {"port": 8000}
    assert speculation_of({"port": 8000}) is None
