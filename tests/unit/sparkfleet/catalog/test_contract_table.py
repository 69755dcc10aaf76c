"""The table of recordings: what is written into it is what it gives back, and a new version changes its own lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.catalog.contract_table import CONTRACTS, Table, read_table
from tests.contract.table import changes, written

VERSIONS = ["0.1.0", "0.2.0", "0.10.0", "1.0.0"]
NAMES = st.sampled_from(["a", "b", "c"])
CHOICES = st.sets(NAMES, max_size=2).map(sorted)


def argument() -> st.SearchStrategy[dict[str, Any]]:
    cells = {"options": st.just(["--a"]), "type": st.sampled_from(["int", "str"])}
    more = {
        "choices": CHOICES.filter(bool),
        "fields": st.dictionaries(NAMES, CHOICES, min_size=1),
        "default": st.integers(),
    }
    return st.fixed_dictionaries(cells, optional=more)


RECORDING = st.fixed_dictionaries(
    {
        "arguments": st.dictionaries(NAMES, argument()),
        "values": st.fixed_dictionaries({"env": CHOICES, "parsers": CHOICES}),
    }
)
RECORDINGS = st.dictionaries(st.sampled_from(VERSIONS), RECORDING, min_size=1)


def table_of(text: str) -> Table:
    document = json.loads(text)
    return Table(tuple(document["versions"]), tuple(document["arguments"]), document["values"])


@given(RECORDINGS)
def test_every_recording_comes_back_as_it_went_in(recordings: dict[str, Any]) -> None:
    table = table_of(written(None, recordings))
    assert list(table.versions) == [version for version in VERSIONS if version in recordings]
    assert {version: table.recording(version) for version in table.versions} == recordings


@given(RECORDINGS, st.randoms())
def test_the_order_of_recording_does_not_matter(recordings: dict[str, Any], random: Any) -> None:
    together, table = written(None, recordings), None
    versions = list(recordings)
    random.shuffle(versions)
    for version in versions:
        text = written(table, {version: recordings[version]})
        table = table_of(text)
    assert text == together


@given(RECORDING, RECORDING)
def test_changes_are_none_where_nothing_differs_and_some_where_anything_does(before: Any, after: Any) -> None:
    assert changes(before, before) == []
    assert bool(changes(before, after)) is (before != after)


def test_a_version_without_news_changes_one_line() -> None:
    table = read_table("vllm")
    before = (CONTRACTS / "vllm.json").read_text(encoding="utf-8").splitlines()
    after = written(table, {"9.0.0": table.recording(table.versions[-1])}).splitlines()
    assert len(before) == len(after)
    assert [old[:12] for old, new in zip(before, after, strict=True) if old != new] == [' "versions":']


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_file_is_as_the_recorder_writes_it(engine: str) -> None:
    assert written(read_table(engine), {}) == (CONTRACTS / f"{engine}.json").read_text(encoding="utf-8")


def test_changes_are_told_by_name() -> None:
    before = {
        "arguments": {"a": {"options": ["--a"], "type": "str", "choices": ["x", "y"]}, "b": {"options": ["--b"]}},
        "values": {"env": ["OLD"]},
    }
    after = {
        "arguments": {"a": {"options": ["--a"], "type": "str", "choices": ["y", "z"]}, "c": {"options": ["--c"]}},
        "values": {"env": ["NEW"]},
    }
    assert changes(before, after) == [
        "~ argument a.choices: +z -x",
        '- argument b {"options": ["--b"]}',
        '+ argument c {"options": ["--c"]}',
        "+ env NEW",
        "- env OLD",
    ]


def test_what_is_not_there_is_missed_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nosuch\.json"):
        read_table("nosuch", tmp_path)
