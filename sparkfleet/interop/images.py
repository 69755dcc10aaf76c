"""Which row of the catalogue a foreign image is, and which vLLM it holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparkfleet.catalog.catalog import Catalog, Line
from sparkfleet.catalog.contract import Contract, contract_for, recorded_versions
from sparkfleet.interop.served import MARK, cannot_carry
from sparkfleet.release.rules.book import refusal

# A version in a tag: «v0.25.1», «2026-07-08-v0.24.0-maxsafe»; not the date, and not CUDA's «cu130».
_VERSION = re.compile(r"(?<![\d.])v?(0\.\d{1,3}\.\d{1,2})(?![\d.])")


# Tags that are pointed elsewhere with each build, unless a date or a commit stands in them.
_MOVING = re.compile(r"(^|[-_.])(latest|nightly|main|master|edge|dev|stable|rolling)($|[-_.])")
_FIXED = re.compile(r"\d{6}|\d{4}-\d\d|[0-9a-f]{7,}|\d+\.\d+\.\d+")


def _moves(tag: str) -> bool:
    return _MOVING.search(tag) is not None and _FIXED.search(tag) is None


@dataclass(frozen=True)
class ForeignImage:
    """An image as a recipe names it, with its row where there is one; `version` is None where nothing tells it."""

    reference: str | None
    tag: str | None
    line: Line | None
    version: str | None
    note: str = ""

    @property
    def contract(self) -> Contract:
        return self.line.contract if self.line else contract_for(self.version or recorded_versions()[-1])


def find(catalog: Catalog, reference: str | None, version: str | None = None) -> ForeignImage:
    """Find an image by its digest, or by its tag; raises SettingsError for one whose name moves."""
    if reference is None:
        return ForeignImage(None, None, None, version)
    if MARK in reference:
        raise cannot_carry(f"the image is {reference}", "a literal name", "give the variable a value in the file")
    name, _, digest = reference.partition("@")
    repository, colon, tag = name.rpartition(":")
    repository, tag = (repository, tag) if colon and "/" not in tag else (name, "")
    repository = re.sub(r"^(index\.)?docker\.io/(library/)?", "", repository)
    rows = {key: row for key, row in catalog.images.items() if row.repository == repository}
    by_digest = {key for key, row in rows.items() if digest and row.digest == digest}
    by_tag = {key for key, row in rows.items() if tag not in ("", "latest") and tag in (key, row.registry_tag)}
    if not digest and ((not tag and "/" in repository) or _moves(tag)):
        dated = [f"{repository}:{row.registry_tag or key}" for key, row in rows.items() if row.registry_tag != "latest"]
        pinned = [f"{repository}@{row.digest}" for row in rows.values() if row.digest and row.registry_tag == "latest"]
        if not rows:
            note = f"image-latest: {reference} moves, so it is never deployed: add the image by a dated tag or a digest"
            return ForeignImage(reference, None, None, version, note)
        expected = f"a dated tag or a digest: {', '.join([*dated, *pinned])}"
        raise refusal("image-latest", f"the recipe names {reference}, which moves", expected)
    found = next(iter(by_digest or by_tag), None)
    if found is None:
        in_tag = _VERSION.search(tag)
        return ForeignImage(reference, None, None, in_tag[1] if in_tag else version)
    row, note = catalog.images[found], ""
    if digest and row.digest and row.digest != digest:
        note = f"It pins {digest}, and the catalogue's {found} is {row.digest}: the lock decides"
    line = catalog.line_of(row)
    return ForeignImage(reference, found, line, line.engine_version, note)
