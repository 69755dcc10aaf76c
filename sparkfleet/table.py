"""Rows as text with aligned columns. Without pyinfra: commands that connect to nothing start at once."""

from __future__ import annotations

from collections.abc import Sequence


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]
