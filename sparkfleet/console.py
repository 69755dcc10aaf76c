"""The two output streams of a run: they survive a reader that left and a terminal that cannot write every character.

A roll-out must not end because somebody closed the window that showed it.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, TextIO

import click

from sparkfleet.table import some

QUIET = "SPARKFLEET_QUIET"
# From more hosts than this on, those that say the same share a line.
CROWD = 12
_IN_CHORUS = re.compile(
    r"\s*\[(?P<host>[^\]]+)\]\s+(?P<text>Connected|No changes|Success|Skipped|Ready: .*|Loaded fact .*|Error: .*)$"
)


class Stream(io.TextIOWrapper):
    """A text stream that replaces what its encoding lacks, and goes on when nobody reads it any more."""

    def __init__(self, original: Any, unread: Callable[[], None]) -> None:
        super().__init__(original.buffer, encoding=original.encoding, errors="replace", line_buffering=True)
        self._unread = unread
        self.used = False
        self.closed_by_reader = False

    def write(self, text: str) -> int:
        self.used = self.used or bool(text.strip())
        return int(self._try(lambda: super(Stream, self).write(text), len(text)))

    def flush(self) -> None:
        self._try(lambda: super(Stream, self).flush(), None)

    def _try(self, act: Callable[[], Any], instead: Any) -> Any:
        if self.closed_by_reader:
            return instead
        try:
            return act()
        # A pipe whose reader ended, or a terminal that was closed.
        except OSError:
            self.closed_by_reader = True
            # What is left in the buffer must not be tried again when Python leaves.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            self._unread()
            return instead


def take_over(unread: Callable[[], None]) -> None:
    """Replace both streams; `unread` is called when nobody reads standard output any more."""
    for name, told in (("stdout", unread), ("stderr", lambda: None)):
        stream: TextIO = getattr(sys, name)
        if hasattr(stream, "buffer") and not isinstance(stream, Stream):
            setattr(sys, name, Stream(stream, told))


def printed() -> bool:
    """Say whether anything was written to standard output; where that cannot be told, it was."""
    return sys.stdout.used if isinstance(sys.stdout, Stream) else True


def flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def quiet() -> bool:
    return os.environ.get(QUIET, "") not in ("", "0")


class OnlyWhatMatters(logging.Filter):
    """For CI: warnings, failures, and what is marked as a step of the roll-out."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or bool(getattr(record, "step", False))


class Chorus(logging.Filter):
    """What many hosts say in the same words, as one line: pyinfra prints a line for each host and operation."""

    def __init__(self, hosts: int) -> None:
        super().__init__()
        self._alone = hosts <= CROWD
        self._said: dict[str, list[str]] = {}
        self._level = logging.INFO

    def filter(self, record: logging.LogRecord) -> bool:
        found = None if self._alone else _IN_CHORUS.match(click.unstyle(str(record.msg)))
        if found:
            self._said.setdefault(found["text"], []).append(found["host"])
            return False
        self.end()
        return True

    def end(self) -> None:
        """Print what was held back."""
        said, self._said = self._said, {}
        for text, names in said.items():
            click.echo(f"    {some(sorted(names))}: {text}", err=True)


def adopt(hosts: int) -> Chorus:
    """Have pyinfra's log go through these filters."""
    chorus = Chorus(hosts)
    for handler in logging.getLogger("pyinfra").handlers:
        handler.addFilter(chorus)
        if quiet():
            handler.addFilter(OnlyWhatMatters())
    return chorus
