"""The commands that need no host, as an operator types them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from sparkfleet.cli.main import main
from sparkfleet.release.rules import rule_texts

CHOSEN = ["--model", "gemma4-26b-a4b-nvfp4", "--image-tag", "2026-06-11-pr41703"]


def show(*arguments: str, form: str = "argv") -> list[str]:
    return ["show", *CHOSEN, "--format", form, *(word for value in arguments for word in ("--set", value))]


def flag(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        ("max_num_seqs=16", "--max-num-seqs", "16"),
        ("gpu_memory_utilization=0.8", "--gpu-memory-utilization", "0.80"),
        ("gpu_memory_utilization=0.655", "--gpu-memory-utilization", "0.655"),
        ("max_model_len=256k", "--max-model-len", "256000"),
        ("max_model_len=128K", "--max-model-len", "131072"),
        ("host=127.0.0.1", "--host", "127.0.0.1"),
        ('compilation_config={"mode": 3}', "--compilation-config", '{"mode":3}'),
    ],
)
def test_a_value_is_tried(value: str, name: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(show(value)) == 0
    captured = capsys.readouterr()
    assert flag(json.loads(captured.out), name) == expected
    assert f"overridden: {value.partition('=')[0]}: " in captured.err


def test_switches_and_the_speculative_config_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(show("enforce_eager=true", "enable_chunked_prefill=false", "num_speculative_tokens=15")) == 0
    argv = json.loads(capsys.readouterr().out)
    assert "--enforce-eager" in argv
    assert "--no-enable-chunked-prefill" in argv
    assert "--enable-chunked-prefill" not in argv
    assert json.loads(flag(argv, "--speculative-config"))["num_speculative_tokens"] == 15


@pytest.mark.parametrize(
    ("value", "rule", "words"),
    [
        ("max_num_sqs=16", "override-unknown", "did you mean 'max_num_seqs'"),
        ("max-num-seqs=16", "override-unknown", "did you mean 'max_num_seqs'"),
        ("model=/m", "reserved-argument", "an override sets 'model'"),
        ("api_key=secret", "secret-argument", "an override sets api_key"),
        ("max_num_seqs=many", "override-value", "a whole number"),
        ("max_num_seqs=1.5", "override-value", "a whole number"),
        ("max_num_seqs=true", "override-value", "takes a value"),
        ("gpu_memory_utilization=half", "override-value", "a number"),
        ("enforce_eager=1", "override-value", "true or false"),
        ("kv_cache_dtype=nvfp8", "override-value", "takes one of"),
        ("num_speculative_tokens=ten", "override-value", "takes int"),
        ("drafter_attention_backend=8", "override-value", "takes str"),
        ("num_speculative_tokens=16", "speculative-tokens", "1 to 15"),
        ("drafter_attention_backend=flex_attention", "drafter-backend", "crashes at the first request"),
        ("kv_cache_dtype=fp8", "kv-dtype-drafter", "without kv_cache_dtype"),
    ],
)
def test_what_cannot_work_is_refused_on_stderr_with_code_2(
    value: str, rule: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(show(value)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("refused: ")
    assert f"{rule}: " in captured.err
    assert words in captured.err
    assert rule_texts()[rule].source in captured.err


def test_a_word_that_is_no_pair_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(show("max_num_seqs")) == 2
    assert "KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("rule", rule_texts())
def test_every_rule_is_explained(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", rule]) == 0
    text = rule_texts()[rule]
    assert (
        capsys.readouterr().out
        == f"{rule} ({text.severity})\nwhy: {text.why}\nsource: {text.source}\nnext: {text.remedy}\n"
    )


def test_explain_lists_all_ids_and_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert set(rule_texts()) < set(listed)
    assert len(set(listed)) == len(listed)
    assert main(["explain", "drafter-backnd"]) == 2
    assert "did you mean 'drafter-backend'" in capsys.readouterr().err


def test_the_unit_is_the_default_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", *CHOSEN]) == 0
    assert "ExecStart=" in capsys.readouterr().out


def test_docker_model_runner_gets_commands_and_a_list_of_what_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(show(form="docker-model")) == 0
    out = capsys.readouterr().out
    commands = [shlex.split(line) for line in out.splitlines() if line.startswith("docker model ")]
    assert [command[2] for command in commands] == ["install-runner", "pull", "configure", "run"]
    assert "hf.co/AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4" in commands[1]
    lost = out.partition("cannot express")[2]
    for part in ("VLLM_NVFP4_GEMM_BACKEND", "dflash", "ghcr.io/aeon-7/aeon-vllm-ultimate", "revision", "served names"):
        assert part in lost


def test_docker_model_runner_has_no_sglang(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--model", "gemma4-26b-a4b-nvfp4", "--image-tag", "lmsysorg-sglang", "--profile", "sglang-baseline"]
    assert main(["show", *chosen, "--format", "docker-model"]) == 2
    assert "no sglang backend" in capsys.readouterr().err


def test_the_deep_check_is_a_command_without_network_and_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(show(form="deep-check")) == 0
    argv = shlex.split(capsys.readouterr().out)
    assert argv[:5] == ["docker", "run", "--rm", "--network", "none"]
    assert "--gpus" not in argv
    parts = json.loads(argv[-1])["parts"]
    assert [part["path"] for part in parts] == ["/models/gemma4", "/models/gemma4-dflash"]
    assert parts[0]["eos_token_ids"] == [1, 106, 50, 98, 100, 101]


def test_an_overlay_s_profile_can_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profiles.yaml").write_text(
        "schema: 1\nprofiles:\n"
        "  small: {description: d, inherits: production, args: {max_num_seqs: 4}, sources: {'*': me}}\n"
    )
    assert main([*show(), "--profile", "small", "--catalog-overlay", str(tmp_path)]) == 0
    assert flag(json.loads(capsys.readouterr().out), "--max-num-seqs") == "4"
