"""The page of the status document is its schema."""

from __future__ import annotations

from dataclasses import fields

import pytest

from sparkfleet import ROOT
from sparkfleet.cli.main import main
from sparkfleet.cli.status_page import status_page
from sparknode.state.status import Ended, NodeStatus


def test_the_page_is_the_schema() -> None:
    assert (ROOT / "docs/node-status.md").read_text(encoding="utf-8") == status_page()


def test_every_key_of_the_document_is_explained() -> None:
    rows = [
        line.split(" | ") for line in status_page().partition("## Serving")[0].splitlines() if line.startswith("| `")
    ]
    assert [row[0] for row in rows] == [f"| `{field.name}`" for field in fields(NodeStatus)]
    assert all(len(row[2].removesuffix(" |")) > 10 for row in rows)


def test_a_key_that_is_no_name_in_python_is_printed_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--status"]) == 0
    section = capsys.readouterr().out.partition(f"## {Ended.__name__}")[2].partition("## ")[0]
    assert "| `from` | text, or null | The release that served before. |" in section
