"""Flags in every spelling, rewritten by vLLM's own parser and by the importer."""

from __future__ import annotations

import json
import subprocess

import pytest

from sparkfleet.interop.vllm_words import as_vllm_reads
from tests.contract.venv import HERE, ensure, quiet_environment
from tests.unit.sparkfleet.interop.test_words import REWRITTEN

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("version", ["0.22.1", "0.32.0"])
def test_the_importer_rewrites_words_as_vllm_does(version: str) -> None:
    lines = "".join(f"{json.dumps(words)}\n" for words, _ in REWRITTEN)
    done = subprocess.run(
        [str(ensure(version)), str(HERE / "rewrite_words.py")],
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=quiet_environment(version),
    )
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert theirs == [as_vllm_reads(words) for words, _ in REWRITTEN]
