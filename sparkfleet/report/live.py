"""A rollout on a terminal: one line a host, drawn again in place, with its phase, its time and what is left.

How each host ended and every failure stay above it. In a pipe or in CI nothing of this is used.
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

from sparkfleet.report import console
from sparkfleet.rollout.fleet_run import FleetRun
from sparkfleet.rollout.plan import expected_s, minutes
from sparkfleet.text import wrapped
from sparknode.state.journal import STATES, TERMINAL

_LINE = re.compile(rf"(?P<state>{'|'.join(STATES)}): (?P<text>.*)")
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

    def heard(self, host: str, text: str) -> None:
        """Take a line that a node printed into the block, if it tells a phase of its activation."""
        found = _LINE.fullmatch(text)
        if not found or host not in self._run.hosts:
            return
        state = found["state"]
        self._since.setdefault(host, time.monotonic())
        self._rows[host] = (state, found["text"])
        if state in TERMINAL:
            self._rows.pop(host)
        if state in TERMINAL or time.monotonic() - self._drawn_at >= DRAW_S:
            self.draw()

    def above(self, message: str, **options: Any) -> None:
        """Print a line that stays, above the block."""
        self.clear()
        click.echo(wrapped(message, shutil.get_terminal_size().columns), **options)

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
    """Show this rollout on the terminal, where there is one and its lines are not all asked for."""
    live = Live(run, sys.stderr)
    if not sys.stderr.isatty() or not console.show(live):
        return
    for handler in logging.getLogger("pyinfra").handlers:
        handler.addFilter(live)
    gevent.spawn(_tick, live, run)


def _tick(live: Live, run: FleetRun) -> None:
    while run.progress.leases or not run.progress.outcomes:
        gevent.sleep(1)
        live.draw()
    live.clear()
