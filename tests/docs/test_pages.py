"""The pages hold together: links lead somewhere, files that are named exist, and the index has every page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from sparkfleet import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tests").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^\s*```.*?^\s*```", re.DOTALL | re.MULTILINE)
# A file or folder of the repository, as the prose names it; NAME stands for any.
NAMED = re.compile(r"`((?:sparkfleet|sparknode|catalog|tasks|tests|templates|group_data|inventory|docs)/[\w./-]*)`")
# What a run or the operator makes.
MADE = {"inventory/known_hosts"}
SOURCES = [
    str(path.relative_to(ROOT))
    for folder in ("sparkfleet", "sparknode", "tasks", "templates", "catalog", "group_data")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".yaml", ".j2", ".sh"}
]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    page = ROOT / name
    links = [link for link in LINK.findall(FENCE.sub("", text_of(page))) if not link.startswith(("http", "mailto:"))]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name}: {link}"
        assert not anchor or anchor in anchors(target), f"{name}: {link}"


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    named = {path for path in NAMED.findall(text_of(ROOT / name)) if "NAME" not in path} - MADE
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_the_index_has_every_page_once() -> None:
    listed = re.findall(r"^\| \[([\w.-]+)\]\(\1\) \| .+ \|$", text_of(ROOT / "docs/README.md"), re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md")


def test_the_glossary_has_each_word_once_in_order() -> None:
    table = text_of(ROOT / "docs/glossary.md").partition("|---|---|\n")[2]
    words = re.findall(r"^\| ([a-z]+) \| \S.+ \|$", table, re.MULTILINE)
    assert len(words) == table.count("\n")
    assert words == sorted(set(words))
    assert len(words) > 30


def test_the_changelog_begins_with_this_version() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    versions = re.findall(r"^## \[([\d.]+)\] - ", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == project["version"]


@pytest.mark.parametrize("name", [*(name for name in NAMES if "tests/" not in name), *SOURCES])
def test_rollout_and_rollback_are_spelled_one_way(name: str) -> None:
    assert re.findall(r"\broll-(?:out|back)s?\b", text_of(ROOT / name), re.IGNORECASE) == []
