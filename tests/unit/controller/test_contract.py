"""Recorded command lines: versions between recordings, values as the parsers take them, and reading words back."""

from __future__ import annotations

import pytest

from sparkfleet.arguments import read_arguments
from sparkfleet.contract import contract_for, version_key, whole_number

OLD, NEW = contract_for("0.22.1"), contract_for("0.32.0")


def test_a_recorded_version_is_exact_and_any_other_says_what_it_was_read_from() -> None:
    assert (OLD.exact, OLD.basis, OLD.doubtful) == (True, ("0.22.1",), frozenset())
    between = contract_for("0.26.0")
    assert (between.exact, between.basis) == (False, ("0.22.1", "0.32.0"))
    assert contract_for("0.20.1").basis == ("0.22.1",)
    assert contract_for("0.33.0").basis == ("0.32.0",)
    assert str(between) == "vllm 0.26.0 (read from 0.22.1 and 0.32.0)"


def test_between_two_recordings_both_are_accepted_and_their_difference_is_doubtful() -> None:
    between = contract_for("0.26.0")
    assert "kv_cache_dtype" in between.spec_fields - OLD.spec_fields
    assert "calculate_kv_scales" in between.doubtful
    assert "max_num_seqs" not in between.doubtful
    assert "VLLM_NVFP4_GEMM_BACKEND" in between.doubtful


def test_sglang_has_a_recording_of_its_own() -> None:
    contract = contract_for("0.5.23", "sglang")
    assert contract.exact
    assert contract.flags["mem_fraction_static"].option == "--mem-fraction-static"
    assert "gpu_memory_utilization" not in contract.flags


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("256k", 256000),
        ("256K", 262144),
        ("1.5k", 1500),
        ("2M", 2 * 2**20),
        ("16", 16),
        (16, 16),
        ("-3", -3),
        ("auto", -1),
        ("abc", None),
        ("1.5", None),
        (1.5, None),
        (True, None),
        ("", None),
        ("٣", None),
    ],
)
def test_whole_numbers_are_read_as_vllm_reads_them(text: object, number: int | None) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("max_num_seqs", "abc", "a whole number"),
        ("max_num_seqs", True, "takes a value"),
        ("max_num_seqs", [1], "not a list"),
        ("max_num_seqs", "256k", "a whole number"),
        ("max_model_len", "256k", None),
        ("gpu_memory_utilization", "much", "a number"),
        ("gpu_memory_utilization", 1, None),
        ("enforce_eager", "yes", "true or false"),
        ("enforce_eager", False, None),
        ("kv_cache_dtype", "nvfp8", "takes one of auto"),
        ("kv_cache_memory_bytes", "8G", None),
        ("kv_cache_memory_bytes", "plenty", "a whole number"),
        ("host", "a\nb", "printable text"),
        ("host", "--port", "not read as a flag"),
        ("video_pruning_rate", "-1e16", "not read as a flag"),
        ("gpu_memory_utilization", float("nan"), "a number"),
        ("max_logprobs", -1, None),
        ("compilation_config", {"level": 3}, None),
        ("compilation_config", "level three", "JSON"),
        ("limit_mm_per_prompt", '{"image": 2}', None),
    ],
)
def test_a_value_is_judged_by_its_flag(flag: str, value: object, words: str | None) -> None:
    problem = OLD.flags[flag].problem_with(value)
    assert (problem is None) if words is None else (words in str(problem))


def test_a_command_line_is_read_back_by_the_contract() -> None:
    words = ["/m", "--max_num_seqs", "8", "--no-enable-prefix-caching", "--served-model-name", "a", "b", "-tp", "1"]
    reading = read_arguments(OLD, [*words, "--gpu-memory-utilization=0.5"])
    assert reading.problems == []
    assert reading.positional == ["/m"]
    assert reading.values == {
        "max_num_seqs": 8,
        "enable_prefix_caching": False,
        "served_model_name": ["a", "b"],
        "tensor_parallel_size": 1,
        "gpu_memory_utilization": 0.5,
    }


@pytest.mark.parametrize(
    ("words", "rule", "found"),
    [
        (["--enforce"], "flag-abbreviated", "--enforce is an abbreviation"),
        (["--port", "1", "--port", "2"], "flag-duplicate", "--port is given twice"),
        (["-tp", "1", "--tensor-parallel-size", "1"], "flag-duplicate", "--tensor-parallel-size"),
        (["--enable-prefix-cache"], "flag-unknown", "did you mean '--enable-prefix-caching'"),
        (["--swap-space", "4"], "flag-unknown", "--swap-space is unknown to vllm 0.22.1"),
        (["--port"], "flag-value", "--port has no value"),
        (["--port", "http"], "flag-value", "a whole number"),
        (["--dtype", "float8"], "flag-value", "takes one of"),
        (["--enforce-eager=yes"], "flag-value", "takes no value"),
        (["--speculative-config", "{method:dflash}"], "flag-value", "JSON"),
    ],
)
def test_what_the_real_parser_would_take_in_silence_or_refuse_is_named(words: list[str], rule: str, found: str) -> None:
    problems = read_arguments(OLD, words).problems
    assert [problem[0] for problem in problems] == [rule]
    assert found in problems[0][1]


def test_flags_that_a_version_dropped_are_unknown_to_it() -> None:
    assert read_arguments(OLD, ["--calculate-kv-scales"]).problems == []
    assert read_arguments(NEW, ["--calculate-kv-scales"]).problems[0][0] == "flag-unknown"


def test_versions_sort_by_number() -> None:
    assert sorted(["0.32.0", "0.5.23", "0.22.1", "0.22.1+cpu"], key=version_key)[0] == "0.5.23"
    assert version_key("0.22.1rc1") == (0, 22, 1)
