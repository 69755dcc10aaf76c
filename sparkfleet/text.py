"""Tables and texts for a terminal's width. Without pyinfra: commands that connect to nothing start at once."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

import click


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]


def fitted(
    headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], width: int | None, dispensable: Sequence[str]
) -> list[str]:
    """Return the table's lines within a width in characters: columns go, first to last, and nothing is cut."""
    kept = list(headings)
    for candidate in (None, *dispensable):
        kept = [heading for heading in kept if heading != candidate]
        columns = [headings.index(heading) for heading in kept]
        lines = table(tuple(kept), [tuple(row[column] for column in columns) for row in rows])
        if width is None or max(map(len, lines)) <= width:
            break
    return lines


def width() -> int | None:
    """Return the terminal's columns; None in a pipe, which gets everything."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(text: str, columns: int | None) -> str:
    """Return the text with long lines wrapped between words, and their rest further in; only those lose colour."""
    return "\n".join(_folded(line, columns) for line in text.split("\n"))


def _folded(line: str, columns: int | None) -> str:
    plain = click.unstyle(line)
    if columns is None or len(plain) <= columns:
        return line
    rest = " " * (len(plain) - len(plain.lstrip()) + 4)
    return textwrap.fill(plain, columns, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False)


def some(names: Sequence[str], most: int = 4) -> str:
    """Name hosts: all of a few, of many the first, the last and how many they are."""
    return ", ".join(names) if len(names) <= most else f"{len(names)} hosts ({names[0]} … {names[-1]})"
