"""A property over all forms: a release of an imported profile runs the command line of the original, or says what
differs. The expectation comes from the generator, and the release's words are read with plain string code."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.sparkfleet.interop.asking import DRAFTER, TARGET, ask, served

IMAGES = ("2026-06-11-pr41703", "2026-06-18-v0.23.0-dflashfix", "2026-07-08-v0.24.0-maxsafe", "2026-08-16-v0.27.1")
REPOSITORY = "ghcr.io/aeon-7/aeon-vllm-ultimate"
# An argument, its flag in several spellings, and values that no rule refuses.
ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "--max-num-seqs": (("--max-num-seqs", "--max_num_seqs"), ("1", "8", "16")),
    "--max-num-batched-tokens": (("--max-num-batched-tokens",), ("4096", "8192")),
    "--tensor-parallel-size": (("--tensor-parallel-size", "-tp"), ("1",)),
    "--dtype": (("--dtype",), ("auto", "bfloat16")),
    "--seed": (("--seed",), ("0", "7")),
    "--host": (("--host",), ("0.0.0.0", "127.0.0.1")),
    "--block-size": (("--block-size", "--block_size"), ("16", "32")),
    "--attention-backend": (("--attention-backend",), ("triton_attn", "TRITON_ATTN")),
    "--quantization": (("--quantization", "-q"), ("compressed-tensors",)),
    "--tool-call-parser": (("--tool-call-parser",), ("gemma4",)),
    "--served-model-name": (("--served-model-name",), ("one", "one two")),
}
SWITCHES = ("--enable-auto-tool-choice", "--enable-chunked-prefill", "--trust-remote-code", "--enforce-eager")
# Dotted words in any order are one JSON argument.
DOTTED = {"image": ("--limit-mm-per-prompt.image", "2"), "video": ("--limit_mm_per_prompt.video", "0")}
ENV = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1", "TORCH_MATMUL_PRECISION": "highest", "CUTE_DSL_ARCH": "sm_121a"}
# What a release adds by the model's row, and what it always writes out.
WRITTEN_OUT = {"--enable-prefix-caching", "--served-model-name"}


@st.composite
def engines(draw: Any) -> dict[str, Any]:
    flags: dict[str, Any] = {"--port": "8000", "--max-model-len": "32768", "--gpu-memory-utilization": "0.65"}
    words = [word for flag, value in flags.items() for word in (flag, value)]
    for flag in draw(st.lists(st.sampled_from(sorted(ARGUMENTS)), unique=True)):
        spellings, values = ARGUMENTS[flag]
        spelling, value = draw(st.sampled_from(spellings)), draw(st.sampled_from(values))
        together = spelling.startswith("--") and " " not in value and draw(st.booleans())
        words += [f"{spelling}={value}"] if together else [spelling, *value.split()]
        flags[flag] = value
    for switch in draw(st.lists(st.sampled_from(SWITCHES), unique=True)):
        words.append(switch)
        flags[switch] = ""
    if dotted := draw(st.lists(st.sampled_from(sorted(DOTTED)), unique=True)):
        for key in dotted:
            flag, value = DOTTED[key]
            words += [f"{flag}={value}"] if draw(st.booleans()) else [flag, value]
        flags["--limit-mm-per-prompt"] = {key: int(DOTTED[key][1]) for key in dotted}
    tokens = draw(st.sampled_from([None, 4, 8, 10]))
    if tokens:
        config = {"method": "dflash", "model": DRAFTER, "num_speculative_tokens": tokens}
        words += draw(
            st.sampled_from(
                [
                    ["--speculative-config", json.dumps(config)],
                    [f"--speculative_config={json.dumps(config)}"],
                    [word for key, value in config.items() for word in (f"--speculative-config.{key}", str(value))],
                ]
            )
        )
    env = {name: ENV[name] for name in draw(st.lists(st.sampled_from(sorted(ENV)), unique=True))}
    form = draw(st.sampled_from(["recipe", "run", "shell", "compose", "unit"]))
    tag = draw(st.sampled_from(IMAGES))
    return {"flags": flags, "words": words, "env": env, "tokens": tokens, "form": form, "tag": tag}


def written(engine: dict[str, Any]) -> tuple[str, str]:
    """The engine in the chosen form, and its file's name."""
    image, words, env = f"{REPOSITORY}:{engine['tag']}", ["vllm", "serve", TARGET, *engine["words"]], engine["env"]
    options = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
    if engine["form"] == "recipe":
        document = {
            "recipe_version": "2",
            "model": TARGET,
            "container": image,
            "env": env,
            "command": shlex.join(words),
        }
        return yaml.safe_dump(document), "recipe.yaml"
    if engine["form"] == "compose":
        service = {"image": image, "environment": env, "command": words}
        return yaml.safe_dump({"services": {"engine": service}}), "compose.yaml"
    if engine["form"] == "shell":
        exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in env.items())
        return shlex.join(["docker", "run", image, "bash", "-c", exports + shlex.join(words)]), "run.sh"
    line = shlex.join(["/usr/bin/docker", "run", "--gpus", "all", *options, image])
    command = " \\\n  ".join([line, *map(shlex.quote, words)])
    if engine["form"] == "unit":
        return f"[Service]\nExecStart={command}\nRestart=always\n", "engine.service"
    return f"#!/bin/sh\n{command}\n", "run.sh"


def by_flag(words: Sequence[str]) -> dict[str, str]:
    flags: dict[str, str] = {}
    last = ""
    for word in words:
        if word.startswith("--"):
            last, flags[word] = word, ""
        else:
            flags[last] = f"{flags.get(last, '')} {word}".strip()
    return flags


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(engines())
def test_a_release_runs_the_originals_command_or_says_what_differs(engine: dict[str, Any]) -> None:
    text, origin = written(engine)
    imported = ask(text, origin)
    notes = "\n".join(imported.notes)
    with tempfile.TemporaryDirectory() as folder:
        release = served(imported, Path(folder)).release
    rendered = by_flag(release.container.args)
    speculative = json.loads(rendered.pop("--speculative-config", "null"))
    for flag, value in engine["flags"].items():
        found = rendered.pop(flag)
        if isinstance(value, dict):
            assert json.loads(found) == value
        else:
            assert found.lower() == value.lower()
    rendered.pop("", None)
    rendered.pop("serve", None)
    for flag, value in rendered.items():
        key = flag.removeprefix("--").replace("-", "_")
        assert f"{key}: " in notes or flag in WRITTEN_OUT, (flag, value)
    if engine["tokens"] is None:
        assert speculative is None
    else:
        assert speculative["num_speculative_tokens"] == engine["tokens"]
        assert "attention_backend" not in speculative or "The drafter also gets attention_backend" in notes
    env = release.container.env
    assert {name: env[name] for name in engine["env"]} == engine["env"]
    for name in env.keys() - engine["env"].keys():
        assert f"{name}={env[name]}" in notes
    names = engine["flags"].get("--served-model-name", TARGET).split()
    assert list(release.serve.served_names) == names or release.container.args.count(names[0]) == 1
