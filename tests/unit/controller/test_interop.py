"""Recipes of sparkrun and eugr's scripts, in and out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkfleet.catalog import load
from sparkfleet.cli import main
from sparkfleet.errors import SettingsError
from sparkfleet.interop import export_recipe, import_recipe
from sparkfleet.recipe import Choice
from sparkfleet.release import Compiled, compile_release
from sparkfleet.rules import Deployment
from tests.unit.controller.combos import CATALOG, CURRENT, MODEL, compiled, rendered

TARGET = "AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4"
V2: dict[str, Any] = {
    "recipe_version": "2",
    "model": TARGET,
    "runtime": "vllm",
    "container": f"ghcr.io/aeon-7/aeon-vllm-ultimate:{CURRENT}",
    "max_nodes": 1,
    "metadata": {"description": "Gemma for a test"},
    "defaults": {"port": 8000, "host": "0.0.0.0", "gpu_memory_utilization": 0.7, "max_model_len": 131072, "spec": 8},
    "env": {"VLLM_USE_FLASHINFER_SAMPLER": 1, "TORCH_MATMUL_PRECISION": "highest"},
    "executor_config": {"entrypoint": "", "shm_size": "16gb"},
    "command": "vllm serve {model} \\\n  --host {host} --port {port} \\  \n  --max-model-len {max_model_len}"
    " --gpu-memory-utilization {gpu_memory_utilization} --max-num-seqs 8 --quantization compressed-tensors"
    " --attention-backend triton_attn --trust-remote-code --tool-call-parser gemma4 --reasoning-parser gemma4"
    " --enable-auto-tool-choice --speculative-config"
    ' \'{"method":"dflash","model":"z-lab/gemma-4-26B-A4B-it-DFlash","num_speculative_tokens":{spec},'
    '"attention_backend":"flash_attn"}\'\n',
}
V1: dict[str, Any] = {
    "recipe_version": "1",
    "name": "Gemma Solo",
    "description": "one Spark",
    "model": "example/Other-Model",
    "container": "vllm-node",
    "solo_only": True,
    "defaults": {"port": 8000, "tensor_parallel": 1, "max_model_len": 32768},
    "env": {"CUTE_DSL_ARCH": "sm_121a"},
    "command": "vllm serve example/Other-Model -tp {tensor_parallel} --port {port} --max-model-len {max_model_len}"
    " --quantization modelopt --gpu-memory-utilization 0.7"
    " --override-generation-config '{{\"temperature\":0.7}}'\n",
}


def imported(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    document = {**base, **changes}
    text = yaml.safe_dump({key: value for key, value in document.items() if value is not None})
    (row,) = yaml.safe_load(import_recipe(text, "recipe.yaml", CATALOG).text())["profiles"].values()
    return dict(row)


def refused(base: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(SettingsError) as error:
        imported(base, **changes)
    return error.value.text()


def test_a_v2_recipe_becomes_a_profile() -> None:
    row = imported(V2)
    assert row["speculative"] is True
    assert row["speculative_args"] == {"num_speculative_tokens": 8}
    given = {key: value for key, value in row["args"].items() if value is not None}
    assert given == {
        "host": "0.0.0.0", "port": 8000, "max_model_len": 131072, "gpu_memory_utilization": 0.7, "max_num_seqs": 8,
        "enable_auto_tool_choice": True,
    }  # fmt: skip
    assert row["args"]["max_num_batched_tokens"] is None
    assert row["env"]["TORCH_MATMUL_PRECISION"] == "highest"
    assert row["env"]["VLLM_NVFP4_GEMM_BACKEND"] is None
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in row["env"]
    assert row["sources"] == {"*": "imported from recipe.yaml (recipe version 2)"}


def test_a_v1_recipe_of_an_unknown_model_becomes_a_profile_with_notes() -> None:
    result = import_recipe(yaml.safe_dump(V1), "solo.yaml", CATALOG)
    assert result.profile_id == "gemma-solo"
    assert result.row["args"]["override_generation_config"] == '{"temperature":0.7}'
    assert result.row["args"]["tensor_parallel_size"] == 1
    assert "quantization" not in result.row["args"]
    notes = "\n".join(result.notes)
    assert "example/Other-Model is not in catalog/models.yaml: add it" in notes
    assert "quantization: modelopt" in notes
    assert "vllm-node is not in catalog/images.yaml" in notes


def test_without_a_command_the_defaults_are_the_arguments() -> None:
    defaults = {"port": 8000, "tensor_parallel": 1, "max_model_len": 4096, "enforce_eager": True}
    row = imported(V1, command=None, defaults=defaults)
    given = {key: value for key, value in row["args"].items() if value is not None}
    assert given == {"port": 8000, "tensor_parallel_size": 1, "max_model_len": 4096, "enforce_eager": True}


@pytest.mark.parametrize("braces", ["plain", "doubled"])
def test_json_may_have_plain_or_doubled_braces(braces: str) -> None:
    json_text = '{"temperature":0.7}' if braces == "plain" else '{{"temperature":0.7}}'
    command = f"vllm serve {{model}} --gpu-memory-utilization 0.7 --override-generation-config '{json_text}'"
    row = imported({**V1, "recipe_version": "2"}, command=command)
    assert row["args"]["override_generation_config"] == '{"temperature":0.7}'


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (V1, {"mods": ["mods/fix-gemma4"]}, "mods patch the image"),
        (V1, {"build_args": ["--vllm-ref", "v0.25.1"]}, "build_args build an image"),
        (V1, {"cluster_only": True}, "several nodes"),
        (V2, {"min_nodes": 2}, "several nodes"),
        (V2, {"mode": "cluster"}, "several nodes"),
        (V2, {"runtime": "sglang"}, "runtime is sglang"),
        (V2, {"runtime": "llama-cpp"}, "runtime is llama-cpp"),
        (V2, {"executor": "k8s"}, "executor is k8s"),
        (V2, {"executor_config": {"privileged": True}}, "executor_config.privileged is True"),
        (V2, {"executor_config": {"restart_policy": "always"}}, "executor_config.restart_policy"),
        (V2, {"recipe_version": "3"}, "recipe_version is 3"),
        (V2, {"pre_exec": ["pip install x"]}, "'pre_exec' has no place"),
        (V2, {"env": {"HF_TOKEN": "hf_x"}}, "env.HF_TOKEN looks like a secret"),
        (V2, {"env": {"A": "${HOME}/x"}}, "refers to another variable"),
        (V1, {"command": "export A=1\nvllm serve example/Other-Model"}, "several lines"),
        (V1, {"command": "vllm serve example/Other-Model && echo done"}, "needs a shell: &&"),
        (V1, {"command": "vllm serve example/Other-Model --port $PORT"}, "needs a shell: $PORT"),
        (V1, {"command": "vllm serve example/Other-Model | tee log"}, "needs a shell: |"),
        (V1, {"command": "llama-server -m x"}, "starts with 'llama-server -m'"),
        (V1, {"command": "vllm serve example/Other-Model --port {prot}"}, "placeholder {prot}"),
        (V1, {"command": "vllm serve other/model"}, "serves other/model"),
        (V1, {"command": "vllm serve example/Other-Model --enforce"}, "flag-abbreviated"),
        (V1, {"command": "vllm serve example/Other-Model --port 1 --port 2"}, "flag-duplicate"),
        (V1, {"command": "vllm serve example/Other-Model --swap-space 4"}, "flag-unknown"),
        (V1, {"command": "vllm serve 'example"}, "cannot be read"),
        (V2, {"command": V2["command"].replace("gemma4 --rea", "pythonic --rea")}, "tool_call_parser is pythonic"),
        (V2, {"command": V2["command"].replace("z-lab/", "other/")}, "the model's drafter in the catalogue"),
        (V1, {"command": None, "defaults": {"tensor_paralel": 1}}, "defaults.tensor_paralel is no argument"),
        ({"a": 1}, {}, "no key 'model'"),
    ],
)
def test_what_a_profile_cannot_hold_is_refused_with_the_reason(
    base: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    text = refused(base, **changes)
    assert text.startswith("the recipe cannot be carried over: ")
    assert words in text
    assert "expected: " in text


def test_no_secret_is_repeated_in_the_refusal() -> None:
    assert "hf_x" not in refused(V2, env={"HF_TOKEN": "hf_x"})


def again(outcome: Compiled, folder: Path) -> Compiled:
    """Export, import and compile with the imported profile."""
    result = import_recipe(export_recipe(outcome), "recipe.yaml", CATALOG)
    (folder / "profiles.yaml").write_text(result.text())
    asked = outcome.recipe.choice
    back = Choice(asked.model, asked.image_tag, result.profile_id, asked.hardware)
    return compile_release(load((folder,)), None, back, Deployment(trial=True))


def different() -> dict[tuple[str, str, str], Compiled]:
    """The vLLM releases that differ in more than the image's tag."""
    kinds = {
        (outcome.recipe.arguments, tuple(outcome.recipe.env.items())): names
        for names, outcome in rendered().items()
        if outcome.recipe.engine.kind == "vllm"
    }
    return {names: rendered()[names] for names in kinds.values()}


def test_every_kind_of_vllm_release_survives_the_round_trip(tmp_path: Path) -> None:
    for number, (names, before) in enumerate(different().items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        after = again(before, folder)
        assert after.release["container"]["args"] == before.release["container"]["args"], names
        assert after.release["container"]["env"] == before.release["container"]["env"], names


def test_an_exported_recipe_is_one_that_sparkrun_can_fill() -> None:
    document = yaml.safe_load(export_recipe(compiled()))
    assert document["recipe_version"] == "2"
    assert document["executor_config"] == {"entrypoint": ""}
    assert document["max_nodes"] == 1
    # sparkrun fills {names} from the defaults and collapses doubled braces, as str.format does.
    filled = document["command"].format(model=document["model"], **document["defaults"])
    words = shlex.split(filled.replace("\\\n", " "))
    expected = compiled().release["container"]["args"]
    assert words[:3] == ["vllm", "serve", TARGET]
    assert words[3:-1] == [word if word != "0.80" else "0.8" for word in expected[2:-1]]
    assert '"model":"z-lab/gemma-4-26B-A4B-it-DFlash"' in words[-1]


def test_sglang_is_exported_too() -> None:
    document = yaml.safe_load(export_recipe(compiled("sglang-baseline", "lmsysorg-sglang", MODEL)))
    assert document["runtime"] == "sglang"
    assert document["command"].startswith("python3 -m sglang.launch_server \\\n  --model-path {model}")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-recipe", "--model", MODEL, "--image-tag", CURRENT]) == 0
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(capsys.readouterr().out)
    assert main(["import-recipe", str(recipe)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["schema"] == 1
    assert main(["import-recipe", str(tmp_path / "none.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    recipe.write_text("model: [")
    assert main(["import-recipe", str(recipe)]) == 2
    assert "is not YAML" in capsys.readouterr().err
