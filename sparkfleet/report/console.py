"""The two output streams of a run: they survive a reader that left and a terminal that cannot write every character.

A rollout must not end because somebody closed the window that showed it.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import click
from pyinfra.api.output import set_echo

from sparkfleet.text import some

if TYPE_CHECKING:
    from pyinfra.api import Host

    from sparkfleet.report.narration import Narration, Said

QUIET = "SPARKFLEET_QUIET"
# What pyinfra prints at each run and tells nobody anything: its files were read, and that its own list of changes may
# lack some, which the plan has.
_CHATTER = re.compile(r"--> Preparing operation files\.\.\.|Loading: .*|\s*\[[^\]]+\]\s+Ready: .*")
_NOTE = "Detected changes may not include every change pyinfra will execute."
_OF_A_HOST = re.compile(r"\[(?P<host>[^\]]+)\]")
_LINE = re.compile(r"\s*\[(?P<host>[^\]]+)\]\s+(?P<text>.*)")
_IN_CHORUS = re.compile(r"No changes|Success|Skipped|Loaded fact .*|Error: .*")


class Stream(io.TextIOWrapper):
    """A text stream that replaces what its encoding lacks, and goes on when nobody reads it any more."""

    def __init__(self, original: Any, unread: Callable[[], None]) -> None:
        super().__init__(original.buffer, encoding=original.encoding, errors="replace", line_buffering=True)
        self._unread = unread
        self.used = False
        self.closed_by_reader = False

    def write(self, text: str) -> int:
        if text.lstrip().startswith(_NOTE):
            return len(text)
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
    """For CI: warnings, failures, and what is marked as a step of the rollout."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or bool(getattr(record, "step", False))


class Chorus(logging.Filter):
    """What several hosts say in the same words, as one line: pyinfra prints a line for each host and operation."""

    def __init__(self) -> None:
        super().__init__()
        # While hosts connect, whatever one of them says may be said of all.
        self.connecting = True
        self._said: dict[tuple[str, int], list[str]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = click.unstyle(str(record.msg))
        if _CHATTER.fullmatch(text):
            self.end()
            return False
        found = _LINE.fullmatch(text)
        if found and (self.connecting or _IN_CHORUS.fullmatch(found["text"])):
            self._said.setdefault((found["text"], record.levelno), []).append(found["host"])
            return False
        self.end()
        return True

    def end(self) -> None:
        """Print what was held back."""
        said, self._said = self._said, {}
        for (text, level), names in said.items():
            line = f"    {some(sorted(names))}: {text}"
            click.secho(line, fg="red" if level >= logging.ERROR else None, err=True)


class Screen(Protocol):
    """A terminal that shows what hosts are at."""

    def heard(self, host: str, text: str) -> None:
        """Take a line of a node."""

    def above(self, message: str, **options: Any) -> None:
        """Print a line that stays."""


class Voice:
    """What nodes print while a command runs, on its way through pyinfra's output: `narration` says what is shown."""

    def __init__(self) -> None:
        self._followed: dict[str, tuple[str, Narration]] = {}
        self.screen: Screen | None = None

    @contextmanager
    def following(self, host: Host) -> Iterator[None]:
        # Here, because a run with nothing to do has no such command.
        from sparkfleet.report.narration import Narration

        prefix, narration = host.print_prefix, Narration()
        self._followed[host.name] = prefix, narration
        try:
            yield
        finally:
            del self._followed[host.name]
            self._show(prefix, narration.end())

    def echo(self, message: Any = None, **options: Any) -> None:
        """Take what pyinfra prints."""
        plain = click.unstyle(str(message or ""))
        found = _OF_A_HOST.match(plain)
        if not found or found["host"] not in self._followed:
            self._print(message, **options)
            return
        prefix, narration = self._followed[found["host"]]
        text = plain[len(click.unstyle(prefix)) :]
        self._show(prefix, narration.hear(text, time.monotonic()), {text: str(message)})
        if self.screen:
            self.screen.heard(found["host"], text)

    def _show(self, prefix: str, lines: Iterable[Said], styled: dict[str, str] | None = None) -> None:
        for said in lines:
            if said.rank == "alarm" or not (quiet() or (self.screen and said.rank == "step")):
                text = said.text.replace("\n", f"\n{prefix}")
                self._print((styled or {}).get(said.text, f"{prefix}{text}"), err=True)

    def _print(self, message: Any, **options: Any) -> None:
        if self.screen:
            self.screen.above(str(message or ""), **options)
        else:
            click.echo(message, **options)


_voice: Voice | None = None


@contextmanager
def following(host: Host) -> Iterator[None]:
    """Show what a command on this host prints as a story, unless each line was asked for."""
    if _voice is None:
        yield
        return
    with _voice.following(host):
        yield


def show(screen: Screen) -> bool:
    """Show the rest of the run on this screen; return False where each line was asked for."""
    if _voice is None:
        return False
    _voice.screen = screen
    return True


def adopt(*, verbose: bool) -> Chorus | None:
    """Have pyinfra's log and output go through here; verbose, they stay as pyinfra prints them."""
    global _voice
    chorus = None
    if not verbose:
        chorus, _voice = Chorus(), Voice()
        set_echo(_voice.echo)
    for handler in logging.getLogger("pyinfra").handlers:
        # First, since what it leaves out is no line of the chorus either.
        if quiet():
            handler.addFilter(OnlyWhatMatters())
        if chorus:
            handler.addFilter(chorus)
    return chorus
