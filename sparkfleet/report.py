"""What a person reads at the end: one row a host. The rows are pure; printing hangs on pyinfra's disconnect."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from pyinfra.api.state import BaseStateCallback
from pyinfra.context import ctx_state

from sparkfleet import compare, guard, record
from sparkfleet.fleet import FleetRun

HEADINGS = (
    "host",
    "state",
    "release",
    "image tag",
    "digest",
    "drafter",
    "prefix cache",
    "acceptance",
    "MAL",
    "load",
)
COLORS = {"verified": "green", "unprovisioned": "yellow"}


def host_row(name: str, node: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a host, as text, in the order of HEADINGS."""
    fleet = node.get("fleet") or {}
    release = fleet.get("release") or {}
    proof = fleet.get("proof") or {}
    figures = proof.get("figures") or {}
    speculative = release.get("drafter_backend") is not None
    cells: tuple[object, ...] = (
        name,
        state_of(node),
        fleet.get("current"),
        release.get("image_tag"),
        (release.get("digest") or "").removeprefix("sha256:")[:12],
        release.get("drafter_backend") or ("none" if release else None),
        _on_off(release.get("prefix_caching")),
        _percent(compare.figure_of(figures, "acceptance-short")) if speculative else None,
        _decimal(compare.figure_of(figures, "mean-acceptance-length-short")) if speculative else None,
        _seconds(proof.get("load_s")),
    )
    return tuple(str(cell) if cell not in (None, "") else "–" for cell in cells)


def state_of(node: Mapping[str, Any]) -> str:
    """Return the host's state in a word or two."""
    if "error" in node:
        return "no answer"
    fleet = node.get("fleet") or {}
    activation, serving = fleet.get("activation"), fleet.get("serving") or {}
    last = fleet.get("last") or {}
    if activation:
        return str(activation.get("state"))
    if not fleet.get("current"):
        return "failed" if last.get("state") == "failed" else "unprovisioned"
    if serving.get("unit") != "active":
        return f"stopped ({serving.get('unit') or 'unknown'})"
    if serving.get("drift"):
        return "drift"
    if fleet.get("current") != fleet.get("verified"):
        return "unverified"
    return "verified"


def _on_off(value: object) -> str | None:
    return None if value is None else "on" if value else "off"


def _percent(value: float | None) -> str | None:
    return f"{value * 100:.1f} %" if value is not None else None


def _decimal(value: float | None) -> str | None:
    return f"{value:.2f}" if value is not None else None


def _seconds(value: Any) -> str | None:
    return f"{float(value):.0f} s" if isinstance(value, int | float) else None


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table with aligned columns."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]


def print_table(run: FleetRun) -> None:
    rows = [host_row(name, run.nodes[name]) for name in run.hosts if name in run.nodes]
    lines = table(HEADINGS, rows)
    click.echo("")
    click.echo(click.style(lines[0], bold=True))
    for row, line in zip(rows, lines[1:], strict=True):
        color = COLORS.get(row[1], "red") if sys.stdout.isatty() else None
        click.echo(click.style(line, fg=color) if color else line)
    click.echo("")


def print_roll_out(run: FleetRun) -> None:
    """Print the comparison, if there was one, how each host ended that did not go well, and the roll-out in a line."""
    progress = run.progress
    if progress.comparison:
        for line in table(compare.HEADINGS, compare.cells(progress.comparison)):
            click.echo(line)
        click.echo("")
    for name in progress.failures():
        click.echo(f"{name}: {record.ending(run, name)}")
    for line in record.summary(run):
        click.echo(line)
    click.echo(f"report: {record.write(run)}")
    click.echo("")


class _AtTheEnd(BaseStateCallback):
    """Prints the table when the last host disconnects: the one moment that also comes when a wave stopped the run."""

    def __init__(self, run: FleetRun) -> None:
        self.run = run
        self.left = 0

    def host_disconnect(self, state: Any, host: Any) -> None:  # type: ignore[override]  # pyinfra calls it bound
        self.left += 1 if host.name in self.run.hosts else 0
        if self.left != len(state.activated_hosts):
            return
        print_table(self.run)
        if self.run.progress.begun:
            self.run.progress.leases.clear()
            print_roll_out(self.run)


def print_at_end() -> None:
    """Arrange for the table of this run; calls after the first change nothing (deploy code runs once per host)."""
    state = ctx_state.get()
    if not any(isinstance(handler, _AtTheEnd) for handler in state.callback_handlers):
        state.add_callback_handler(_AtTheEnd(guard.run()))
