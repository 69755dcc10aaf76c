"""The command line. Exit codes: 0 done or nothing to do, 1 failed, 2 refused input; those of `activate` below."""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from sparknode import SCHEMAS, frontend, memory, probe, recover, stage
from sparknode import release as releases
from sparknode.activate import work
from sparknode.errors import Failed, Refused
from sparknode.files import read_text
from sparknode.paths import Paths
from sparknode.shape import parse
from sparknode.system import Host, RealSystem

FAILED, REFUSED = 1, 2


def say(text: str) -> None:
    """A line for whoever watches, now: the reader may be an SSH session away."""
    print(text, flush=True)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="sparknode", description="Measures, stages and activates releases on this node.")
    top.add_argument("--version", action="version", version=json.dumps(SCHEMAS, sort_keys=True))
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("probe", help="print one JSON document about this node")
    commands.add_parser("status", help="print what is staged, serving and under way as JSON")
    commands.add_parser("stage", help="read a stage request from stdin and carry it out")
    activate = commands.add_parser(
        "activate", help="exit 0 committed, 10 reverted, 20 failed, 30 another activation is under way"
    )
    activate.add_argument("release")
    activate.add_argument("--rollout", required=True)
    activate.add_argument("--operator", required=True)
    activate.add_argument("--foreground", action="store_true", help="do the work in this process")
    activate.add_argument("--activation", default=None, help="the id under which the journal holds it")
    gate = commands.add_parser("memory-gate", help="wait until a release's memory is free, or exit 1")
    gate.add_argument("release_json", type=Path)
    recovery = commands.add_parser("recover", help="after a boot: finish or take back what was cut off")
    recovery.add_argument("--finish", action="store_true", help="prove the release that was put back")
    return top


def dispatch(host: Host, options: argparse.Namespace) -> int:
    if options.command == "probe":
        say(json.dumps(probe.probe(host), ensure_ascii=False))
        return 0
    if options.command == "status":
        say(json.dumps(probe.status(host), ensure_ascii=False))
        return 0
    if options.command == "stage":
        return stage.stage(host, sys.stdin.read(), say)
    if options.command == "memory-gate":
        return memory_gate(host, options.release_json)
    if options.command == "recover":
        return recover.finish(host, say) if options.finish else recover.recover(host, say)
    if options.foreground:
        activation = options.activation or str(uuid.uuid4())
        return work(host, options.release, options.rollout, options.operator, activation, say)
    return frontend.activate(host, options.release, options.rollout, options.operator, say)


def memory_gate(host: Host, path: Path) -> int:
    """ExecStartPre of the serving unit: the exit code decides whether the engine is started."""
    text = read_text(path)
    if text is None:
        raise Refused(f"{path}: can't be read; expected a release.json")
    release = releases.from_node(parse(text, str(path)))
    if release.utilization is None:
        say("memory-gate: this release asks for none")
        return 0
    longest = release.timing.memory_wait_s
    came, figures = memory.wait(host, release.utilization, longest, lambda now: say(f"memory-gate: waiting, {now}"))
    say(f"memory-gate: {figures}" if came else f"{memory.REFUSED}: {figures}; stop what holds the memory")
    return 0 if came else FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; every expected trouble is one line on stderr and an exit code."""
    options = parser().parse_args(argv)
    try:
        return dispatch(Host(Paths(), RealSystem()), options)
    except Refused as problem:
        print(f"sparknode {options.command}: refused: {problem}", file=sys.stderr, flush=True)
        return REFUSED
    except (Failed, OSError) as problem:
        print(f"sparknode {options.command}: {problem}", file=sys.stderr, flush=True)
        return FAILED
