"""A roll-out on a terminal: one line a host, drawn again in place, with its phase, its time and what is left.

Failures are printed at once and stay. In a pipe or in CI nothing of this is used, and each line of a node is a line.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
import textwrap
import time
from collections import Counter
from typing import Any, TextIO

import click
import gevent
from pyinfra.api.output import set_echo

from sparkfleet.fleet import FleetRun
from sparkfleet.plan import expected_s, minutes
from sparkfleet.table import wrapped

_LINE = re.compile(r"\[(?P<host>[^\]]+)\]\s+(?P<state>[a-z]+): (?P<text>.*)")
_ENDED = ("committed", "reverted", "failed")
_LOUD = ("reverting", "reverted", "failed")
# Hundreds of hosts have a line each several times a second; nobody reads faster than this.
DRAW_S = 0.25


class Live(logging.Filter):
    """The block of lines at the bottom of the terminal; as a log filter it makes room for what pyinfra says."""

    def __init__(self, run: FleetRun, out: TextIO) -> None:
        super().__init__()
        self._run, self._out = run, out
        self._rows: dict[str, tuple[str, str]] = {}
        self._since: dict[str, float] = {}
        self._drawn = 0
        self._drawn_at = 0.0

    def echo(self, message: Any = None, **options: Any) -> None:
        """Take a line of pyinfra's output: a node's step goes into the block, everything else above it."""
        found = _LINE.match(click.unstyle(str(message or "")).strip())
        host, state = (found["host"], found["state"]) if found else ("", "")
        if not found or host not in self._run.hosts:
            self.clear()
            click.echo(wrapped(str(message or ""), shutil.get_terminal_size().columns), **options)
            return
        self._since.setdefault(host, time.monotonic())
        self._rows[host] = (state, found["text"])
        if state in _LOUD:
            self.clear()
            click.echo(wrapped(str(message or ""), shutil.get_terminal_size().columns), **options)
        if state in _ENDED:
            self._rows.pop(host)
        if state in _ENDED or time.monotonic() - self._drawn_at >= DRAW_S:
            self.draw()

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        self.clear()
        return True

    def clear(self) -> None:
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def draw(self) -> None:
        """Draw the block again, no line longer than the terminal and no more of them than it has."""
        self.clear()
        self._drawn_at = time.monotonic()
        columns, rows = shutil.get_terminal_size()
        # A line of its own for the rest, and one for the cursor: what scrolls off cannot be drawn again.
        room = max(1, rows - 2)
        hosts = list(self._rows)
        lines = [self.line(host, columns - 1) for host in hosts[: room if len(hosts) > room else None]]
        if rest := hosts[room:]:
            states = Counter(self._rows[host][0] for host in rest)
            said = ", ".join(f"{count} {state}" for state, count in states.most_common())
            lines.append(f"… and {len(rest)} more: {said}"[: columns - 1])
        self._out.write("".join(f"{line}\n" for line in lines))
        self._out.flush()
        self._drawn = len(lines)

    def line(self, host: str, width: int) -> str:
        state, text = self._rows[host]
        seconds = time.monotonic() - self._since[host]
        known = expected_s(self._run, host)
        left = f"about {minutes(max(0.0, known - seconds))} left" if known is not None else "time left unknown"
        longest = max(map(len, self._run.hosts))
        fixed = f"{host:{longest}}  {state:10}  {seconds // 60:3.0f}:{seconds % 60:02.0f}  {left:17}"
        said = textwrap.shorten(text, max(2, width - len(fixed) - 2), placeholder=" …", break_on_hyphens=False)
        return f"{fixed}  {said}"[:width]


def begin(run: FleetRun) -> None:
    """Take over the terminal's output for this roll-out, where there is a terminal."""
    if not sys.stderr.isatty():
        return
    live = Live(run, sys.stderr)
    set_echo(live.echo)
    for handler in logging.getLogger("pyinfra").handlers:
        handler.addFilter(live)
    gevent.spawn(_tick, live, run)


def _tick(live: Live, run: FleetRun) -> None:
    while run.progress.leases or not run.progress.outcomes:
        gevent.sleep(1)
        live.draw()
    live.clear()
