"""The pages of the documents that cross the border are their schemas."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from sparkfleet import ROOT
from sparkfleet.cli import schema_page
from sparkfleet.cli.main import main
from sparknode.facts.facts import Facts
from sparknode.state.release import Release
from sparknode.state.status import Ended, NodeStatus

PAGES = {
    "facts.md": (schema_page.facts_page(), Facts),
    "release.md": (schema_page.release_page(), Release),
    "node-status.md": (schema_page.status_page(), NodeStatus),
}
# What a key's own name tells of its unit.
UNITS = re.compile(
    r"_(s|c|w|gib|kib|mib|mhz|mbit|percent|bytes|inodes|uids|tokens|per_second)$|hugepages|tokens|port|pid|uid|schema"
    "|requests|restarts"
)


def rows(page: str) -> list[list[str]]:
    """Key, type and words of each row of a page."""
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_the_schema(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == PAGES[name][0]


@pytest.mark.parametrize(("page", "whole"), PAGES.values(), ids=PAGES)
def test_every_key_of_the_document_is_explained(page: str, whole: type[Facts | Release | NodeStatus]) -> None:
    found = rows("## ".join(page.split("## ")[:2]))
    assert [row[0] for row in found] == [f"`{field.name}`" for field in fields(whole)]
    assert all(len(row[2]) > 10 for row in found)


@pytest.mark.parametrize(
    ("name", "some"),
    [("facts.md", {"Gpu", "Owner", "Unread"}), ("release.md", {"Image", "LongFloors", "HttpCall"})],
)
def test_every_part_that_is_named_is_on_the_page(name: str, some: set[str]) -> None:
    page = PAGES[name][0]
    named = {word for row in rows(page) for word in re.findall(r"[A-Z]\w+", row[1])} - {"NodeStatus"}
    assert some <= named
    assert {name for name in named if f"## {name}\n" not in page} == set()


@pytest.mark.parametrize("name", ["facts.md", "release.md"])
def test_every_number_has_its_unit(name: str) -> None:
    numbers = [row for row in rows(PAGES[name][0]) if "number" in row[1]]
    assert len(numbers) > 25
    assert [row[0] for row in numbers if len(row) < 3 and not UNITS.search(row[0].strip("`"))] == []


def test_a_key_that_is_no_name_in_python_is_printed_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--status"]) == 0
    section = capsys.readouterr().out.partition(f"## {Ended.__name__}")[2].partition("## ")[0]
    assert "| `from` | text, or null | The release that served before. |" in section
    assert main(["explain", "--facts"]) == 0
    assert "| `LoadState` | text, or null |" in capsys.readouterr().out
    assert main(["explain", "--release"]) == 0
    assert "| `in` | Hook | The way back in. |" in capsys.readouterr().out
