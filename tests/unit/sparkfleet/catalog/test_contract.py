"""Recorded command lines: versions between recordings, values as the parsers take them, and reading words back."""

from __future__ import annotations

import pytest

from sparkfleet.catalog.arguments import read_arguments
from sparkfleet.catalog.catalog import load
from sparkfleet.catalog.contract import contract_for, recorded_versions, version_key, whole_number

OLD, NEW = contract_for("0.22.1"), contract_for("0.32.0")
OLDEST, NEWEST = recorded_versions()[0], recorded_versions()[-1]


def test_every_image_line_has_a_recording_of_its_own() -> None:
    catalog = load()
    for tag, image in catalog.images.items():
        line = catalog.line_of(image)
        assert contract_for(line.engine_version, line.engine).exact, tag


def test_a_recorded_version_is_exact_and_any_other_says_what_it_was_read_from() -> None:
    assert (OLD.exact, OLD.basis, OLD.doubtful) == (True, ("0.22.1",), frozenset())
    between = contract_for("0.28.0")
    assert (between.exact, between.basis) == (False, ("0.27.1", "0.29.0"))
    assert contract_for("0.19.0").basis == (OLDEST,)
    assert contract_for("1.0.0").basis == (NEWEST,)
    assert str(between) == "vllm 0.28.0 (read from 0.27.1 and 0.29.0)"


def test_between_two_recordings_both_are_accepted_and_their_difference_is_doubtful() -> None:
    before, after, between = contract_for("0.27.1"), contract_for("0.29.0"), contract_for("0.28.0")
    gone, new = before.flags.keys() - after.flags.keys(), after.flags.keys() - before.flags.keys()
    assert len(gone) > 1 < len(new)
    assert gone | new <= between.doubtful & between.flags.keys()
    assert not between.doubtful & before.flags.keys() & after.flags.keys()
    assert between.env >= before.env | after.env
    for value in ("bitsandbytes", "modelexpress"):
        assert between.flags["load_format"].problem_with(value) is None
    assert between.flags["attention_config"].problem_with({"use_prefill_decode_attention": True}) is None


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
        ("compilation_config", {"mode": 3}, None),
        ("compilation_config", {"modus": 3}, "has no key 'modus', did you mean 'mode'"),
        ("kernel_config", '{"moe_backend": "marlin"}', None),
        ("kernel_config", {"moe_backend": "Flashinfer-Cutlass"}, None),
        ("kernel_config", {"moe_backend": "martin"}, "takes one of aiter, auto"),
        ("moe_backend", "FLASHINFER-CUTLASS", None),
        ("hf_overrides", {"rope_parameters": {}}, None),
        ("hf_overrides", "a.module.function", None),
        ("hf_overrides", [1], "not a list"),
        ("additional_config", {"a": 1}, None),
        ("model_loader_extra_config", '{"a": 1}', None),
        ("load_format", "nosuch", "takes one of auto"),
        ("kv_cache_dtype", "int4_per_token_head", "(in versions from 0.25.0 on)"),
        ("hf_token", True, None),
        ("middleware", ["a.b", "c.d"], None),
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


@pytest.mark.parametrize(
    ("version", "words", "found"),
    [
        ("0.23.0", ["--prefix-match-unit", "16"], "unknown to vllm 0.23.0 (in versions from 0.26.0 on)"),
        ("0.32.0", ["--calculate-kv-scales"], "unknown to vllm 0.32.0 (in versions up to "),
        ("0.22.1", ["--disable-prefix-caching"], "unknown to vllm 0.22.1 (in versions from 0.33.0 on)"),
        ("0.22.1", ["--load-format=gpuf"], "takes one of auto"),
        ("0.32.0", ["--load-format=gguf"], "(in versions up to 0.23.0)"),
        ("0.32.0", ["--nosuch"], "unknown to vllm 0.32.0"),
    ],
)
def test_the_message_names_the_versions_that_have_it(version: str, words: list[str], found: str) -> None:
    problems = read_arguments(contract_for(version), words).problems
    assert [found in problem[1] for problem in problems] == [True]


def test_a_switch_is_read_by_every_spelling_that_its_version_has() -> None:
    new = contract_for("0.33.0")
    for word, value in (
        ("--enable-prefix-caching", True),
        ("--no-enable-prefix-caching", False),
        ("--disable-prefix-caching", False),
        ("--no-async-scheduling", False),
    ):
        assert list(read_arguments(new, [word]).values.values()) == [value]
    assert new.flags["enable_prefix_caching"].words(False) == ["--no-enable-prefix-caching"]


def test_repeated_and_bare_flags_are_read_as_the_parser_reads_them() -> None:
    words = ["--middleware", "a.b", "--middleware", "c.d", "--hf-token"]
    reading = read_arguments(OLD, words)
    assert (reading.values, reading.problems) == ({"middleware": ["a.b", "c.d"], "hf_token": True}, [])
    assert [word for key, value in reading.values.items() for word in OLD.flags[key].words(value)] == words


def test_flags_that_a_version_dropped_are_unknown_to_it() -> None:
    assert read_arguments(OLD, ["--calculate-kv-scales"]).problems == []
    assert read_arguments(NEW, ["--calculate-kv-scales"]).problems[0][0] == "flag-unknown"


def test_versions_sort_by_number() -> None:
    assert sorted(["0.32.0", "0.5.23", "0.22.1", "0.22.1+cpu"], key=version_key)[0] == "0.5.23"
    assert version_key("0.22.1rc1") == (0, 22, 1)
