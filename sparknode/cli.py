"""The command line.

Exit codes: 0 done or nothing to do, 1 failed, 2 refused input, 31 another roll-out has the lease; those of `activate`
stand below.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from sparknode import INTENTS, SCHEMAS
from sparknode.errors import Refused, Stopped
from sparknode.paths import Paths
from sparknode.system import Host, RealSystem, ready

# Every other module is imported where its command is carried out: a program in a zip file is compiled anew each time,
# and what a probe does not need would cost it a quarter of a second.
FAILED = 1
SYNC = {
    "look": "print how far this host is, its models and its addresses as JSON",
    "torrent": "read a manifest from stdin and print the torrent of its model as base64",
    "share": "read a spread request from stdin; give or take until told to stop",
    "image": "read a stage request from stdin; save its image for other hosts and print the manifest",
    "stop": "end what `share` does here",
}


def say(text: str) -> None:
    """A line for whoever watches, now: the reader may be an SSH session away."""
    print(text, flush=True)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="sparknode", description="Measures, stages and activates releases on this node.")
    top.add_argument("--version", action="version", version=json.dumps(SCHEMAS, sort_keys=True))
    top.add_argument("--root", type=Path, default=Path("/"), help="where the node's files stand, if not on this host")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("probe", help="print one JSON document about this node")
    collecting = commands.add_parser("collect", help="keep what a probe reads, without secrets, for a report")
    collecting.add_argument("folder", nargs="?", type=Path, help="new or empty; without one a tar.gz is printed")
    commands.add_parser("status", help="print what is staged, serving and under way as JSON")
    commands.add_parser("stage", help="read a stage request from stdin and carry it out")
    commands.add_parser("fetch", help="read a fetch request from stdin and bring its model from the Hub")
    commands.add_parser("hub-get", help="what `fetch` calls in the tool environment").add_argument("order")
    commands.add_parser("prune", help="read a prune request from stdin; remove what no release needs")
    sync = commands.add_parser("sync", help="a model between hosts").add_subparsers(dest="verb", required=True)
    for verb, words in SYNC.items():
        sync.add_parser(verb, help=words).add_argument("--wait", type=float, default=0, help="seconds, for look")
    commands.add_parser("verify", help="hash every model that stands here again; exit 1 when one is damaged")
    activate = commands.add_parser(
        "activate",
        help="exit 0 committed, 10 reverted, 20 failed, 30 another activation is under way, 31 another roll-out has "
        "the lease, 32 the release failed its gates here before",
    )
    activate.add_argument("release")
    activate.add_argument("--rollout", required=True)
    activate.add_argument("--operator", required=True)
    activate.add_argument("--token", type=int, default=None, help="of the lease; without one it is taken for this")
    activate.add_argument("--retry-release", default=None, help="try this release although it failed here before")
    activate.add_argument("--intent", choices=INTENTS, default=None, help="noted; a restart is always done")
    leaving = commands.add_parser("retire", help="drain, stop, and remove everything that belongs to sparkfleet")
    leaving.add_argument("--rollout", required=True)
    leaving.add_argument("--operator", required=True)
    leaving.add_argument("--models", action="store_true", help="the weights too")
    building = commands.add_parser("compile", help="what the installation calls, before the program takes its place")
    building.add_argument("build")
    gate = commands.add_parser("memory-gate", help="wait until a release's memory is free, or exit 1")
    gate.add_argument("release_json", type=Path)
    commands.add_parser("work", help="what sparkfleet-activate.service calls: carry out the order, or end what is left")
    commands.add_parser("watch", help="look at the engine once, and restart it where that is the known cure")
    leases = commands.add_parser("lease", help="who rolls this host").add_subparsers(dest="verb", required=True)
    for verb in ("take", "renew", "release"):
        one = leases.add_parser(verb)
        one.add_argument("--rollout", required=True)
        if verb == "take":
            one.add_argument("--operator", required=True)
            one.add_argument("--from", dest="source", required=True, help="the address that the operator comes from")
        else:
            one.add_argument("--token", type=int, required=True)
        if verb != "release":
            one.add_argument("--ttl", type=float, default=None)
    return top


def dispatch(host: Host, options: argparse.Namespace) -> int:
    if options.command == "probe":
        from sparknode import probe

        say(json.dumps(probe.probe(host), ensure_ascii=False))
        return 0
    if options.command == "collect":
        from sparknode import collect

        raw = collect.collect(host, {**collect.COMMANDS, **collect.STORY})
        if options.folder:
            collect.write(collect.documents(raw), options.folder)
        else:
            sys.stdout.buffer.write(collect.pack(collect.documents(raw)))
        return 0
    if options.command == "compile":
        from sparknode import bytecode

        say(f"compiled: {bytecode.compile_program(host.paths, Path(sys.argv[0]), options.build)}")
        return 0
    if options.command == "status":
        from sparknode import probe

        say(json.dumps(probe.status(host), ensure_ascii=False))
        return 0
    if options.command in ("stage", "fetch", "prune"):
        command = getattr(import_module(f"sparknode.{options.command}"), options.command)
        return int(command(host, sys.stdin.read(), say))
    if options.command == "hub-get":
        from sparknode import hub

        return hub.main(options.order, os.environ.get("HF_TOKEN"), say)
    if options.command == "sync":
        return sync_command(host, options.verb, options.wait)
    if options.command == "verify":
        from sparknode import verify

        return verify.verify(host, say)
    if options.command == "memory-gate":
        return memory_gate(host, options.release_json)
    if options.command == "work":
        from sparknode import activate

        code = activate.work(host, say, ready)
        # Also where nothing was left to do: a service that ends without this word has failed, and is started again.
        ready()
        return code
    if options.command == "watch":
        from sparknode import lookout

        return lookout.look(host, say)
    if options.command == "lease":
        return lease_command(host, options)
    if options.command == "retire":
        from sparknode import retire

        return retire.retire(host, options.rollout, options.operator, models=options.models, tell=say)
    from sparknode import frontend
    from sparknode.orders import Order

    order = Order(
        options.release, options.rollout, options.operator, options.token, options.retry_release, options.intent
    )
    return frontend.activate(host, order, say)


def lease_command(host: Host, options: argparse.Namespace) -> int:
    """Take, renew or give back the lease; the one that stands is printed as JSON."""
    from sparknode import lease

    if options.verb == "release":
        lease.release(host, options.rollout, options.token)
        return 0
    ttl_s = options.ttl or lease.TTL_S
    if options.verb == "take":
        found = lease.take(host, options.rollout, options.operator, options.source, ttl_s)
    else:
        found = lease.renew(host, options.rollout, options.token, ttl_s)
    say(json.dumps(found, ensure_ascii=False))
    return 0


def sync_command(host: Host, verb: str, wait_s: float) -> int:
    from sparknode import spread, stage

    if verb == "share":
        return spread.share(host, sys.stdin.read(), say)
    if verb == "image":
        return stage.save_image(host, sys.stdin.read(), say)
    if verb == "stop":
        spread.stop(host)
    else:
        say(json.dumps(spread.report(host, wait_s)) if verb == "look" else spread.metainfo(host, sys.stdin.read()))
    return 0


def memory_gate(host: Host, path: Path) -> int:
    """ExecStartPre of the serving unit: the exit code decides whether the engine is started."""
    from sparknode import memory
    from sparknode import release as releases
    from sparknode.files import read_text
    from sparknode.shape import parse

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
        return dispatch(Host(Paths(options.root), RealSystem()), options)
    except Stopped as problem:
        refused = "refused: " if isinstance(problem, Refused) else ""
        print(f"sparknode {options.command}: {refused}{problem}", file=sys.stderr, flush=True)
        return problem.code
    except OSError as problem:
        print(f"sparknode {options.command}: {problem}", file=sys.stderr, flush=True)
        return FAILED
