"""Recipes of sparkrun and of eugr's scripts, as they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkfleet.cli.main import main
from sparkfleet.interop import ImportedProfile
from tests.unit.sparkfleet.interop.asking import SECRET, TARGET, ask, refused
from tests.unit.sparkfleet.release.combos import CURRENT, MODEL

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


def written(base: dict[str, Any], **changes: Any) -> str:
    document = {**base, **changes}
    return yaml.safe_dump({key: value for key, value in document.items() if value is not None})


def imported(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    (row,) = yaml.safe_load(of(base, **changes).text())["profiles"].values()
    return dict(row)


def of(base: dict[str, Any], **changes: Any) -> ImportedProfile:
    return ask(written(base, **changes), "recipe.yaml")


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
    assert row["sources"] == {"*": "imported from recipe.yaml (a sparkrun recipe of version 2)"}


def test_a_v1_recipe_of_an_unknown_model_becomes_a_profile_with_notes() -> None:
    result = ask(written(V1), "solo.yaml")
    assert result.profile_id == "solo"
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
        (V2, {"executor_config": {"volumes": ["/a:/b"]}}, "executor_config.volumes"),
        (V2, {"builder": "uv-venv"}, "builder is uv-venv"),
        (V2, {"builder": "eugr", "builder_config": {"rebuild": True}}, "build_args build an image"),
        (V2, {"runtime_config": {"preset": "x"}}, "runtime_config sets preset"),
        (
            V2,
            {"distribution_config": {"models": {"entries": [{"name": "a/b"}]}}},
            "distribution_config.models names a/b",
        ),
        (V2, {"container": "ghcr.io/aeon-7/aeon-vllm-ultimate:latest"}, "image-latest"),
        (V2, {"env": {"A": "{launch.model_path}"}}, "env.A is filled at launch"),
        (V2, {"recipe_version": "3"}, "recipe_version is 3"),
        (V2, {"pre_exec": ["pip install x"]}, "'pre_exec' has no place"),
        (V2, {"env": {"HF_TOKEN": SECRET}}, "env.HF_TOKEN looks like a secret"),
        (V2, {"env": {"HF_TOKEN": f"${{HF_TOKEN:-{SECRET}}}"}}, "env.HF_TOKEN looks like a secret"),
        (V2, {"defaults": {**V2["defaults"], "api_key": SECRET}}, "defaults.api_key looks like a secret"),
        (V2, {"command": V2["command"].strip() + f" --api-key {SECRET}"}, "--api-key looks like a secret"),
        (V2, {"env": {"A": "${HOME}/x"}}, "refers to another variable"),
        (V1, {"command": "pip install x\nvllm serve example/Other-Model"}, "several lines: pip install x"),
        (V1, {"command": "vllm serve example/Other-Model && echo done"}, "needs a shell: &&"),
        (V1, {"command": "vllm serve example/Other-Model --port $PORT"}, "needs a shell: ${PORT}"),
        (V1, {"command": "vllm serve example/Other-Model | tee log"}, "needs a shell: |"),
        (V1, {"command": "llama-server -m x"}, "starts with 'llama-server -m'"),
        (V1, {"command": "vllm serve example/Other-Model --port {prot}"}, "placeholder {prot}"),
        (V1, {"command": "vllm serve other/model"}, "serves other/model"),
        (V1, {"command": "vllm serve example/Other-Model --enforce"}, "flag-abbreviated"),
        (V1, {"command": "vllm serve example/Other-Model --port 1 --port 2"}, "flag-duplicate"),
        (V1, {"command": "vllm serve example/Other-Model --swap-space 4"}, "flag-unknown"),
        (V1, {"command": "vllm serve 'example"}, "a quote is not closed"),
        (V2, {"command": V2["command"].replace("gemma4 --rea", "pythonic --rea")}, "tool_call_parser is pythonic"),
        (V2, {"command": V2["command"].replace("z-lab/", "other/")}, "the model's drafter in the catalogue"),
        (V1, {"command": None, "defaults": {"tensor_paralel": 1}}, "defaults.tensor_paralel is no argument"),
        ({"a": 1}, {}, "no key 'model'"),
    ],
)
def test_what_a_profile_cannot_hold_is_refused_with_the_reason(
    base: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    text = refused(written(base, **changes), "recipe.yaml")
    assert text.startswith(("the recipe cannot be carried over: ", "image-latest"))
    assert words in text
    assert "expected: " in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"builder": "docker-pull"}, "Builder docker-pull is left out"),
        ({"builder": "eugr"}, "Builder eugr is left out"),
        ({"maintainer": "me", "capabilities": ["chat"], "x-own": 1}, "Left out, since"),
        ({"min_sparkrun_version": "0.4", "unsupported_capabilities": []}, "min_sparkrun_version"),
        ({"recipe_version": "2.1"}, "of version 2.1"),
        ({"post_exec": ["curl localhost"]}, "'post_exec' is left out"),
        ({"executor_config": {"auto_remove": False, "restart_policy": "always"}}, "executor_config.auto_remove"),
        ({"env": {"HF_TOKEN": "${HF_TOKEN}", "HUGGING_FACE_HUB_TOKEN": "$HF_TOKEN"}}, "HF_TOKEN is left out"),
        (
            {"distribution_config": {"models": {"entries": [{"name": "{model}"}, "z-lab/gemma-4-26B-A4B-it-DFlash"]}}},
            "",
        ),
        ({"distribution_config": {"models": {"entries": [{"name": "{model}", "revision": "0"}]}}}, "pins {model} to 0"),
        ({"model_revision": "0" * 40}, f"model_revision is {'0' * 40}, and a release serves the catalogue's 1d7e8d"),
    ],
)
def test_what_changes_nothing_is_noted(changes: dict[str, Any], note: str) -> None:
    result = of(V2, **changes)
    assert note in "\n".join(result.notes)
    assert "HF_TOKEN" not in result.row.get("env", {})


def test_variables_that_the_command_exports_are_the_engines() -> None:
    command = "set -e\nexport A=1\nB=2 exec vllm serve {model} --port 8000\n"
    env = imported(V1, command=command, env={"C": "3"})["env"]
    assert env == {"A": "1", "B": "2", "C": "3"}


def test_defaults_may_refer_to_each_other_and_hold_json() -> None:
    defaults = {"spec": {"method": "mtp", "num_speculative_tokens": 2}, "base": 80, "port": "{base}00"}
    command = "vllm serve {model} --port {port} --speculative-config '{spec}'"
    row = imported({**V1, "recipe_version": "2"}, command=command, defaults=defaults)
    assert row["args"]["port"] == 8000
    assert row["speculative_args"] == {"method": "mtp", "num_speculative_tokens": 2}


def test_flags_that_a_recipe_leaves_out_stay_absent() -> None:
    container = "ghcr.io/aeon-7/aeon-vllm-ultimate:2026-07-08-v0.24.0-maxsafe"
    row = imported(V2, container=container, env={})
    assert {key for key in ("linear_backend", "moe_backend", "dtype") if row["args"][key] is None} == {
        "linear_backend", "moe_backend", "dtype",
    }  # fmt: skip
    assert row["env"]["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] is None
    assert "VLLM_ENGINE_READY_TIMEOUT_S" not in row["env"]
    assert (
        imported(V2, container=container, env={"VLLM_ENGINE_READY_TIMEOUT_S": "900"})["env"][
            "VLLM_ENGINE_READY_TIMEOUT_S"
        ]
        == "900"
    )


def test_an_image_is_known_by_its_digest() -> None:
    digest = "sha256:be9e05a11da6e72607ab6f3e960993b253b673af0727005122a3266129a518e3"
    for container in (
        f"ghcr.io/aeon-7/aeon-vllm-ultimate@{digest}",
        f"ghcr.io/aeon-7/aeon-vllm-ultimate:any@{digest}",
        f"ghcr.io/aeon-7/aeon-vllm-ultimate:latest@{digest}",
    ):
        assert of(V2, container=container).image_tag == "2026-06-18-v0.23.0-dflashfix"


def test_served_names_are_the_operators_choice() -> None:
    command = V2["command"].strip() + " --served-model-name one two"
    result = of(V2, command=command)
    assert result.row["served_names"] == ["one", "two"]
    assert "It is served as one, two" in "\n".join(result.notes)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-recipe", "--model", MODEL, "--image-tag", CURRENT]) == 0
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(capsys.readouterr().out)
    assert main(["import-recipe", str(recipe)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["schema"] == 1
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "models.yaml").write_text("schema: 1\nmodels: {gemma4-26b-a4b-nvfp4: {repo: example/renamed}}\n")
    assert main(["import-recipe", str(recipe), "--catalog-overlay", str(overlay)]) == 2
    assert "example/renamed" not in capsys.readouterr().out
    assert main(["import-recipe", str(tmp_path / "none.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    recipe.write_text("model: [")
    assert main(["import-recipe", str(recipe)]) == 2
    assert "is not YAML" in capsys.readouterr().err
