"""The simulated engine's command line against what vLLM's real parsers were recorded to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.engine.cli import load_contract, parse, unknown_environment
from tests.lab.engine.settings import ConfigError, LoadError, check_load, resolve
from tests.lab.engine.tags import TAGS
from tests.unit.lab.conftest import card_arguments

VERSIONS = ("0.22.1", "0.32.0")
OLD, CARD, NEW = "2026-06-04-pr44389", "2026-06-11-pr41703", "2026-08-16-v0.27.1"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_cards_own_arguments_are_accepted(version: str, target: Path, drafter: Path) -> None:
    arguments = parse(load_contract(version), card_arguments(target, drafter))
    assert arguments.model_tag == str(target)
    assert arguments.served_model_name == ["gemma4-aeon-uncensored", "gemma4-fast", "gemma4-deep"]
    assert arguments.speculative_config["num_speculative_tokens"] == 10
    assert arguments.gpu_memory_utilization == 0.80


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/m", "--enable-prefix-cache"], "unrecognized arguments: --enable-prefix-cache"),
        (["/m", "--dtype", "float8"], "argument --dtype: invalid choice: 'float8'"),
        (["/m", "--kv-cache-dtype", "nvfp8"], "argument --kv-cache-dtype: invalid choice: 'nvfp8'"),
        (["/m", "--port", "http"], "invalid int value: 'http'"),
        (["/m", "--port"], "expected one argument"),
        (["/m", "/n"], "unrecognized arguments: /n"),
        (["/m", "--swap-space", "4"], "unrecognized arguments: --swap-space"),
        (
            ["/m", "--speculative-config", "{method:dflash}"],
            "argument --speculative-config/-sc: Value {method:dflash} cannot be converted to <function loads at 0x",
        ),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_argparse_refuses_with_status_2(
    version: str, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(load_contract(version), argv)
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: vllm serve [model_tag] [options]")
    assert message in said


def test_abbreviations_repeats_and_underscores_are_accepted_as_in_vllm() -> None:
    argv = ["/m", "--enforce", "--port", "1", "--port", "2", "--max_model_len", "256k"]
    arguments = parse(load_contract("0.22.1"), argv)
    assert (arguments.enforce_eager, arguments.port, arguments.max_model_len) == (True, 2, 256_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--quantization", "nvfp5"], "Quantization method specified in the model config (compressed-tensors)"),
        (["--attention-backend", "triton_atn"], "Unknown attention backend: 'TRITON_ATN'"),
        (["--reasoning-parser", "gemma5"], "Reasoning parser 'gemma5' not found"),
        (["--tool-call-parser", "gemma5"], "invalid tool call parser: gemma5"),
        (["--gpu-memory-utilization", "1.7"], "CacheConfig"),
        (["--max-num-seqs", "-3"], "SchedulerConfig"),
        (["--max-num-batched-tokens", "32"], "must be greater than or equal to max_num_seqs (64)"),
        (["--max-model-len", "524288"], "is greater than the derived max_model_len"),
        (["--speculative-config", '["dflash"]'], "Input should be a dictionary"),
        (["--speculative-config", '{"method":"dflsh","num_speculative_tokens":2}'], "Input should be 'custom_class'"),
        (["--speculative-config", '{"num_spec":2}'], "Unexpected keyword argument"),
        (["--speculative-config", '{"method":"dflash","model":"/d"}'], "num_speculative_tokens must be provided"),
        (
            ["--speculative-config", '{"method":"dflash","num_speculative_tokens":2,"attention_backend":"flash_atn"}'],
            "Unknown attention backend: 'FLASH_ATN'",
        ),
    ],
)
def test_a_bad_configuration_is_refused_after_parsing(
    change: list[str], message: str, target: Path, drafter: Path
) -> None:
    contract = load_contract("0.22.1")
    arguments = parse(contract, [*card_arguments(target, drafter), *change])
    with pytest.raises(ConfigError, match=r".*") as refused:
        resolve(arguments, contract, TAGS[CARD])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("tag", "backend", "extra", "message"),
    [
        (OLD, "flash_attn", [], "partial multimodal token full attention not supported"),
        (OLD, "flex_attention", [], None),
        (CARD, "flash_attn", [], None),
        (CARD, "flash_attn", ["--kv-cache-dtype", "fp8"], "needs a BF16 KV cache"),
        (CARD, "triton_attn", [], "non-causal attention not supported"),
        (NEW, "flash_attn", [], None),
    ],
)
def test_the_drafters_back_end_is_tied_to_the_tag(
    tag: str, backend: str, extra: list[str], message: str | None, target: Path, drafter: Path
) -> None:
    contract = load_contract(TAGS[tag].recorded_contract)
    arguments = parse(contract, [*card_arguments(target, drafter, backend), *extra])
    settings = resolve(arguments, contract, TAGS[tag])
    if message is None:
        check_load(arguments, settings, TAGS[tag])
    else:
        with pytest.raises(LoadError, match=message):
            check_load(arguments, settings, TAGS[tag])


def test_the_older_runner_is_refused_where_its_pin_was_dropped(
    target: Path, drafter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    contract = load_contract("0.32.0")
    arguments = parse(contract, card_arguments(target, drafter))
    with pytest.raises(ConfigError, match="require the V2 model runner"):
        resolve(arguments, contract, TAGS[NEW])
    assert resolve(arguments, contract, TAGS["2026-07-16-v0.25.1"]).speculation is not None


@pytest.mark.parametrize(
    ("tag", "unknown"),
    [
        (CARD, []),
        ("2026-07-01-v0.24.0", ["VLLM_NVFP4_GEMM_BACKEND", "VLLM_USE_FLASHINFER_MOE_FP4"]),
        (
            "2026-09-11-v0.29.0-omni",
            ["VLLM_NVFP4_GEMM_BACKEND", "VLLM_TEST_FORCE_FP8_MARLIN", "VLLM_USE_FLASHINFER_MOE_FP4"],
        ),
    ],
)
def test_the_cards_variables_are_unknown_to_later_versions(
    tag: str, unknown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VLLM_USE_FLASHINFER_MOE_FP4", "VLLM_NVFP4_GEMM_BACKEND", "VLLM_TEST_FORCE_FP8_MARLIN"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    contract = load_contract(TAGS[tag].recorded_contract)
    assert unknown_environment(contract, TAGS[tag].version) == unknown


def test_truncated_weights_stop_the_load(target: Path, drafter: Path, tmp_path: Path) -> None:
    for file in target.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[:-1] if file.suffix == ".safetensors" else content)
    contract = load_contract("0.22.1")
    arguments = parse(contract, card_arguments(tmp_path, drafter))
    settings = resolve(arguments, contract, TAGS[CARD])
    with pytest.raises(LoadError, match="file not fully covered"):
        check_load(arguments, settings, TAGS[CARD])
