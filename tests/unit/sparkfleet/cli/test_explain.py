"""`python -m sparkfleet explain ID`: whatever is printed has an explanation, read here from the code that prints it."""

from __future__ import annotations

import re

import pytest

from sparkfleet import ROOT
from sparkfleet.cli.explain import codes, explanation, gates, known, words
from sparkfleet.cli.main import main
from sparkfleet.preflight.findings import book
from sparkfleet.release.rules import rule_texts
from sparkfleet.rollout import exit_codes
from sparknode import errors
from sparknode.gates.table import GATES
from sparknode.state import journal


def test_every_gate_is_explained_and_no_other() -> None:
    assert set(gates()) == {gate.id for gate in GATES}


def test_every_state_is_explained() -> None:
    assert list(words().states) == list(journal.STATES)


def test_every_finding_of_the_watch_is_explained() -> None:
    text = (ROOT / "sparknode/watchdog/lookout.py").read_text(encoding="utf-8")
    assert set(re.findall(r'self\.findings\["([\w-]+)"\]', text)) == set(words().watch)


def test_every_exit_code_is_explained() -> None:
    stopped = {one.code for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.Stopped)}
    told = re.findall(r"\b(\d{2}) (?:committed|reverted|failed|another|the release)", _help_of_activate())
    assert stopped | set(exit_codes.MEANINGS) | set(map(int, told)) == set(codes())


def _help_of_activate() -> str:
    text = (ROOT / "sparknode" / "cli.py").read_text(encoding="utf-8")
    return re.sub(r'"\s+"', "", text)


@pytest.mark.parametrize("name", known())
def test_an_explanation_says_what_it_is_and_what_to_do(name: str) -> None:
    text = explanation(name)
    assert name in text.splitlines()[0]
    assert len(text.splitlines()) > 1
    assert not re.search(r"\{[\w.\[\]:]+\}", text), "no field stays unfilled"


def test_all_kinds_are_listed() -> None:
    rows = {*rule_texts(), *book().checks, *book().elsewhere, *gates(), *words().states, *words().watch}
    assert set(known()) == rows | {str(code) for code in codes()}


def test_a_name_of_two_kinds_has_two_explanations() -> None:
    assert "a gate of an activation" in explanation("gpu")
    assert "a finding of the watch" in explanation("gpu")


def test_ways_are_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "driver.version"]) == 0
    said = capsys.readouterr().out
    assert "nvidia-driver-pinning-BRANCH" in said
    assert "dgx: update through the DGX Dashboard" in said


def test_an_unknown_id_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "gpu.visibel"]) == 2
    assert "did you mean 'gpu.visible'" in capsys.readouterr().err
