"""Releases written for other tools, and read back: nothing is lost that is not said."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkfleet.catalog.catalog import with_profile
from sparkfleet.interop import EXPORTS
from sparkfleet.release.release import Compiled, compile_release
from tests.unit.sparkfleet.interop.asking import DRAFTER, TARGET, ask, served
from tests.unit.sparkfleet.release.combos import CATALOG, CURRENT, MODEL, TRIAL, choice, compiled, rendered

ORIGINS = {"sparkrun": "recipe.yaml", "compose": "compose.yaml", "run": "run.sh"}
KEY_FILE = "/etc/sparkfleet/api-key.env"


def different() -> dict[tuple[str, str, str], Compiled]:
    """The vLLM releases that differ in more than the image's tag."""
    kinds = {
        (outcome.recipe.arguments, tuple(outcome.recipe.env.items())): names
        for names, outcome in rendered().items()
        if outcome.recipe.engine.kind == "vllm"
    }
    return {names: rendered()[names] for names in kinds.values()}


@pytest.mark.parametrize("form", EXPORTS)
def test_every_kind_of_vllm_release_survives_the_round_trip(form: str, tmp_path: Path) -> None:
    # The three forms differ in their syntax, not in what is written: two of them take every third release.
    kinds = list(different().items())
    for number, (names, before) in enumerate(kinds if form == "sparkrun" else kinds[::3]):
        imported = ask(EXPORTS[form](before), ORIGINS[form], model=names[2])
        after = served(imported, tmp_path / str(number))
        assert after.release.container.args == before.release.container.args, names
        assert after.release.container.env == before.release.container.env, names
        assert "A release also" not in "\n".join(imported.notes), names


@pytest.mark.parametrize("form", EXPORTS)
@pytest.mark.parametrize(
    "drafting",
    [
        {"drafter": "assistant"},
        {"drafter": "eagle3", "speculative_args": {"num_speculative_tokens": 5}},
        {"speculative_args": {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}},
        {"speculative_args": {"num_speculative_tokens_per_batch_size": [[1, 8, 10], [9, 64, 4]]}},
        {"speculative": False, "served_names": ["it's", "two"], "prefix_caching": "off"},
        {"args": {"compilation_config": '{"mode": 3, "pass_config": {"fuse_norm_quant": true}}', "max_num_seqs": None}},
    ],
    ids=["assistant", "eagle3", "look-up", "lengths", "names", "json"],
)
def test_every_way_to_serve_survives_the_round_trip(form: str, drafting: dict[str, Any], tmp_path: Path) -> None:
    row = {"inherits": "production", **drafting}
    known = with_profile(CATALOG, "tried", row)
    before = compile_release(known, None, choice("tried", "2026-08-16-v0.27.1"), TRIAL)
    after = served(ask(EXPORTS[form](before), ORIGINS[form]), tmp_path)
    assert after.release.container.args == before.release.container.args
    assert after.release.artefacts == before.release.artefacts


def test_what_is_exported_again_is_the_same_text(tmp_path: Path) -> None:
    for form, write in EXPORTS.items():
        first = write(compiled("production"))
        second = write(served(ask(first, ORIGINS[form]), tmp_path / form))
        assert _serving(second, form) == _serving(first, form)


def _serving(text: str, form: str) -> Any:
    """What a text makes a container do, without what it calls the profile."""
    if form == "run":
        return [line for line in text.splitlines() if not line.startswith("#")]
    document = yaml.safe_load(text)
    return {key: value for key, value in document.items() if key != "metadata"}


def test_sparkrun_finds_the_drafter_where_it_looks_for_it() -> None:
    text = EXPORTS["sparkrun"](compiled("production"))
    document = yaml.safe_load(text)
    config = json.loads(document["defaults"]["speculative_config"])
    assert config["model"] == DRAFTER
    assert config["revision"] == "77d4202772dfe50b2396ec7bac9cfffc7b9e7057"
    assert "--speculative-config '{speculative_config}'" in document["command"]
    assert "--revision {model_revision}" in document["command"]
    assert "{{" not in text


def test_an_exported_recipe_is_one_that_sparkrun_can_fill() -> None:
    document = yaml.safe_load(EXPORTS["sparkrun"](compiled()))
    assert document["recipe_version"] == "2"
    assert document["executor_config"] == {"entrypoint": ""}
    assert document["max_nodes"] == 1
    values = {"model": document["model"], "model_revision": document["model_revision"], **document["defaults"]}
    words = shlex.split(document["command"].format(**values).replace("\\\n", " "))
    expected = compiled().release.container.args
    assert words[:3] == ["vllm", "serve", TARGET]
    assert words[3:-4] == [word if word != "0.80" else "0.8" for word in expected[2:-2]]
    assert words[-4:-1] == ["--revision", document["model_revision"], "--speculative-config"]


def test_sglang_is_exported_too() -> None:
    outcome = compiled("sglang-baseline", "lmsysorg-sglang", MODEL)
    document = yaml.safe_load(EXPORTS["sparkrun"](outcome))
    assert document["runtime"] == "sglang"
    assert document["command"].startswith("python3 -m sglang.launch_server \\\n  --model-path {model}")
    assert "--revision {model_revision}" in document["command"]
    service = yaml.safe_load(EXPORTS["compose"](outcome))["services"]["serve"]
    assert service["shm_size"] == "32g"
    assert "--shm-size 32g" in EXPORTS["run"](outcome)


def test_a_value_with_blanks_or_quotes_reaches_the_engine_whole() -> None:
    for value in ('{"temperature": 0.7}', "it's {not} a $name"):
        outcome = compiled("agentic", CURRENT, MODEL, override_generation_config='{"a": 1}', download_dir=value)
        for form, write in EXPORTS.items():
            text = write(outcome)
            if form == "run":
                words = shlex.split(text.partition("docker run")[2].replace("\\\n", " "))
            elif form == "compose":
                words = [word.replace("$$", "$") for word in yaml.safe_load(text)["services"]["serve"]["command"]]
            else:
                document = yaml.safe_load(text)
                command = document["command"]
                for name, default in document["defaults"].items():
                    command = command.replace(f"{{{name}}}", str(default))
                words = shlex.split(command.replace("\\\n", " "))
            assert words[words.index("--download-dir") + 1] == value, form


@pytest.mark.parametrize("form", ["compose", "run"])
def test_an_api_key_is_read_from_its_file_and_never_written(form: str) -> None:
    deployment = replace(TRIAL, api_key_file=KEY_FILE)
    outcome = compile_release(CATALOG, None, choice(), deployment)
    text = EXPORTS[form](outcome)
    assert KEY_FILE in text
    assert "VLLM_API_KEY" not in text
    assert "VLLM_API_KEY=…" in EXPORTS[form](compiled())


def test_a_gpu_by_cdi_is_asked_for_in_composes_words() -> None:
    outcome = compile_release(CATALOG, None, choice(), TRIAL, "cdi")
    (device,) = yaml.safe_load(EXPORTS["compose"](outcome))["services"]["serve"]["deploy"]["resources"]["reservations"][
        "devices"
    ]
    assert device == {"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"], "capabilities": ["gpu"]}


def test_the_script_is_one_that_a_shell_runs(tmp_path: Path) -> None:
    """The shell's own reading of the script, with a docker that only prints its words."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done\n')
    docker.chmod(0o755)
    script = tmp_path / "run.sh"
    outcome = compiled("production")
    script.write_text(EXPORTS["run"](outcome))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": "/home/me"}
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=True, env=env, timeout=30)
    words = done.stdout.split("\0")[:-1]
    expected = ["docker", *words]
    argv = [word.replace("/var/lib/sparkfleet", "/home/me/sparkfleet") for word in outcome.argv]
    assert sorted(expected) == sorted(argv)
    arguments = outcome.release.container.args
    assert tuple(words[-len(arguments) :]) == arguments
