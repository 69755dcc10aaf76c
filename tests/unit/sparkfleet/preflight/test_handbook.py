"""docs/preflight.md is the catalogue, and every way to a remedy in it leads somewhere."""

from __future__ import annotations

import re

from sparkfleet import ROOT
from sparkfleet.preflight.findings import book
from sparkfleet.preflight.handbook import handbook
from sparkfleet.release.rules import rule_texts


def test_rows_that_are_decided_elsewhere_name_rules_that_exist() -> None:
    assert {rule for place in book().elsewhere.values() for rule in place.rules} <= rule_texts().keys()


def test_the_handbook_is_the_catalogue() -> None:
    assert (ROOT / "docs" / "preflight.md").read_text(encoding="utf-8") == handbook()
    assert "    docker info --format '{{json .CDISpecDirs}}'\n" in handbook(), "commands are there as they are typed"


def test_the_handbook_shows_no_program_text_and_what_is_expected() -> None:
    page = handbook()
    assert re.findall(r"\{[\w.\[\]:%+]+\}|@\w+", page) == []
    for row, text in book().checks.items():
        section = page.partition(f"\n### {row}\n")[2].partition("\n### ")[0]
        assert ("Expected: " in section) == bool(text.expected), row
        assert all(f"Where {case.when}:" in section for case in text.cases.values() if case.remedy), row


def test_every_way_ends_somewhere_and_is_used() -> None:
    steps = [step for text in book().checks.values() for step in text.remedy]
    steps += [step for text in book().checks.values() for case in text.cases.values() for step in case.remedy or []]
    named = {step.removeprefix("@") for step in steps if step.startswith("@")}
    assert named == set(book().ways)
    assert all("other" in way for way in book().ways.values())
