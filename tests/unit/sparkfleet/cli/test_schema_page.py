"""The pages of the documents that cross the border are their schemas."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from sparkfleet import ROOT
from sparkfleet.cli.main import main
from sparkfleet.cli.schema_page import facts_page, status_page
from sparknode.facts.facts import Facts
from sparknode.state.status import Ended, NodeStatus

PAGES = {"facts.md": (facts_page(), Facts), "node-status.md": (status_page(), NodeStatus)}
# What a key's own name tells of its unit.
UNITS = re.compile(r"_(s|c|w|kib|mib|mhz|mbit|bytes|inodes|uids|per_second)$|hugepages|port|pid|uid|schema")


def rows(page: str) -> list[list[str]]:
    """Key, type and words of each row of a page."""
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_the_schema(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == PAGES[name][0]


@pytest.mark.parametrize(("page", "whole"), PAGES.values(), ids=PAGES)
def test_every_key_of_the_document_is_explained(page: str, whole: type[Facts] | type[NodeStatus]) -> None:
    found = rows("## ".join(page.split("## ")[:2]))
    assert [row[0] for row in found] == [f"`{field.name}`" for field in fields(whole)]
    assert all(len(row[2]) > 10 for row in found)


def test_every_part_of_the_facts_is_on_the_page() -> None:
    page = PAGES["facts.md"][0]
    named = {word for row in rows(page) for word in re.findall(r"[A-Z]\w+", row[1])} - {"NodeStatus"}
    assert {"Gpu", "Owner", "Unread"} <= named
    assert {name for name in named if f"## {name}\n" not in page} == set()


def test_every_number_of_the_facts_has_its_unit() -> None:
    numbers = [row for row in rows(PAGES["facts.md"][0]) if "number" in row[1]]
    assert len(numbers) > 25
    assert [row[0] for row in numbers if len(row) < 3 and not UNITS.search(row[0].strip("`"))] == []


def test_a_key_that_is_no_name_in_python_is_printed_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--status"]) == 0
    section = capsys.readouterr().out.partition(f"## {Ended.__name__}")[2].partition("## ")[0]
    assert "| `from` | text, or null | The release that served before. |" in section
    assert main(["explain", "--facts"]) == 0
    assert "| `LoadState` | text, or null |" in capsys.readouterr().out
