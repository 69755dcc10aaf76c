"""The command line.

Exit codes: 0 done or nothing to do, 1 failed, 2 refused input, 31 another rollout has the lease; those of `activate`
stand below.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from sparknode import INTENTS, SCHEMAS
from sparknode.base.paths import Paths
from sparknode.base.system import Host, RealSystem, ready
from sparknode.errors import Refused, Stopped

# Every other module is imported where its command is carried out: a program in a zip file is compiled anew each time,
# and what a probe does not need would cost it a quarter of a second.
FAILED = 1
OPTIONS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "folder": ("folder", {"nargs": "?", "type": Path, "help": "new or empty; without one a tar.gz is printed"}),
    "order": ("order", {}),
    "wait": ("--wait", {"type": float, "default": 0, "help": "seconds"}),
    "release": ("release", {}),
    "rollout": ("--rollout", {"required": True}),
    "operator": ("--operator", {"required": True}),
    "lease": ("--token", {"type": int, "help": "of the lease; without one it is taken for this"}),
    "retry": ("--retry-release", {"help": "try this release although it failed here before"}),
    "intent": ("--intent", {"choices": INTENTS, "help": "noted; a restart is always done"}),
    "models": ("--models", {"action": "store_true", "help": "the weights too"}),
    "release_json": ("release_json", {"type": Path}),
    "source": ("--from", {"required": True, "help": "the address that the operator comes from"}),
    "token": ("--token", {"type": int, "required": True}),
    "port": ("--port", {"type": int, "required": True}),
    "network": ("--network", {"help": "answer on this host's address in it alone"}),
    "notice": ("--notice", {"type": float, "default": 5.0, "help": "seconds within which a balancer notices"}),
    "ttl": ("--ttl", {"type": float}),
}
# What carries a command out (module:function), and what that is given after the host: these options, what stands on
# standard input, `say` and `ready`.
COMMANDS: tuple[tuple[str, str, str, str], ...] = (
    ("probe", "facts.probe:probe", "", "print one JSON document about this node"),
    ("collect", "facts.collect:keep", "folder", "keep what a probe reads, without secrets, for a report"),
    ("status", "host.node_status:report", "", "print what is staged, serving and under way as JSON"),
    ("stage", "models.stage:stage", "stdin say", "read a stage request from stdin and carry it out"),
    ("fetch", "models.fetch:fetch", "stdin say", "read a fetch request from stdin and bring its model from the Hub"),
    ("hub-get", "models.hub:main", "order say", "what `fetch` calls in the tool environment"),
    ("prune", "models.prune:prune", "stdin say", "read a prune request from stdin; remove what no release needs"),
    ("sync", "", "", "a model between hosts"),
    ("sync look", "models.spread:report", "wait", "print how far this host is, its models and its addresses as JSON"),
    (
        "sync torrent",
        "models.spread:metainfo",
        "stdin",
        "read a manifest from stdin and print the torrent of its model as base64",
    ),
    ("sync share", "models.spread:share", "stdin say", "read a spread request from stdin; give or take until stopped"),
    (
        *("sync image", "models.stage:save_image", "stdin say"),
        "read a stage request from stdin; save its image for other hosts and print the manifest",
    ),
    ("sync stop", "models.spread:stop", "", "end what `share` does here"),
    ("verify", "models.verify:verify", "say", "hash every model that stands here again; exit 1 when one is damaged"),
    (
        *("activate", "activate.follow:ordered", "release rollout operator lease retry intent say"),
        "exit 0 committed, 10 reverted, 20 failed, 30 another activation is under way, 31 another rollout has "
        "the lease, 32 the release failed its gates here before",
    ),
    (
        *("retire", "activate.retire:retire", "rollout operator models say"),
        "drain, stop, and remove everything that belongs to sparkfleet",
    ),
    ("memory-gate", "host.memory:gate", "release_json say", "wait until a release's memory is free, or exit 1"),
    (
        *("work", "activate.worker:work", "say ready"),
        "what sparkfleet-activate.service calls: carry out the order, or end what is left",
    ),
    ("watch", "watchdog.lookout:look", "say", "check the engine once, and restart it if a restart is known to help"),
    ("readiness", "", "", "whether requests may be sent to this host, for a balancer"),
    ("readiness serve", "readiness.server:serve", "ready", "what sparkfleet-ready.service calls: answer over HTTP"),
    ("readiness on", "readiness.switch:turn_on", "port network notice say", "answer from now on and after each boot"),
    ("readiness off", "readiness.switch:turn_off", "say", "answer no more"),
    ("lease", "", "", "who rolls this host"),
    (
        "lease take",
        "state.lease:take",
        "rollout operator source ttl",
        "take it, renew one's own, or take over an ended one",
    ),
    ("lease renew", "state.lease:renew", "rollout token ttl", "extend one's own"),
    ("lease release", "state.lease:release", "rollout token", "give one's own back"),
)


def say(text: str) -> None:
    """A line for whoever watches, now: the reader may be an SSH session away."""
    print(text, flush=True)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="sparknode", description="Measures, stages and activates releases on this node.")
    top.add_argument("--version", action="version", version=json.dumps(SCHEMAS, sort_keys=True))
    top.add_argument(
        "--root", type=Path, default=Path("/"), help="root folder of the node's files, if not this host's /"
    )
    groups = {"": top.add_subparsers(dest="command", required=True)}
    for words, run, takes, about in COMMANDS:
        group, _, name = words.rpartition(" ")
        made = groups[group].add_parser(name, help=about)
        if not run:
            groups[words] = made.add_subparsers(dest="verb", required=True)
            continue
        made.set_defaults(run=run, takes=takes.split())
        for word in filter(OPTIONS.__contains__, takes.split()):
            flag, more = OPTIONS[word]
            made.add_argument(flag, **({**more, "dest": word} if flag.startswith("-") else more))
    return top


def dispatch(host: Host, options: argparse.Namespace) -> int:
    """Carry out a command; its result is an exit code, or what is printed."""
    module, _, name = options.run.partition(":")
    given = {**vars(options), "say": say, "ready": ready}
    if "stdin" in options.takes:
        given["stdin"] = sys.stdin.read()
    found = getattr(import_module(f"sparknode.{module}"), name)(host, *(given[word] for word in options.takes))
    if "ready" in options.takes:
        # Also where nothing was left to do: a service that ends without this word has failed, and is started again.
        ready()
    if isinstance(found, int):
        return found
    if found is not None:
        say(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))
    return 0


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
