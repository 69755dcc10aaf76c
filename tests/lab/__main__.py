"""The lab's command line: ``python -m tests.lab up|down|status|check|knob|…``."""

from __future__ import annotations

import argparse
import sys
import time

from tests.lab import control, faults, gpu, hub_faults, lifecycle, machine
from tests.lab.config import LabError, host_named
from tests.lab.hosts import ssh

CANNOT = 3
ON_HOST = {
    "power-cut": (lambda arguments: faults.power_cut(arguments.host, boot=not arguments.leave_off), "cut the power"),
    "power-on": (lambda arguments: faults.power_on(arguments.host), "boot a host that is off"),
    "power-off": (lambda arguments: faults.power_off(arguments.host), "shut a host down cleanly"),
    "freeze": (lambda arguments: faults.freeze(arguments.host), "stop every process of a host"),
    "thaw": (lambda arguments: faults.thaw(arguments.host), "let a frozen host go on"),
    "link-down": (lambda arguments: faults.link_down(arguments.host), "unplug a host's network"),
    "link-up": (lambda arguments: faults.link_up(arguments.host), "plug it in again"),
    "link-rate": (lambda arguments: faults.link_rate(arguments.host, arguments.mbit or None), "slow its network down"),
    "disk-fill": (lambda arguments: faults.fill_disk(arguments.host, arguments.leave), "fill a host's disk"),
    "disk-free": (lambda arguments: faults.free_disk(arguments.host), "free it again"),
    "gpu": (lambda arguments: faults.break_gpu(arguments.host, arguments.mode), "make nvidia-smi misbehave"),
}


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    arguments, settings = parser.parse_known_args(argv)
    # argparse takes all positional arguments at once, so those behind `--tag TAG` are left over.
    if settings and hasattr(arguments, "settings") and not settings[0].startswith("-"):
        arguments.settings += settings
    elif settings:
        parser.error(f"unrecognized arguments: {' '.join(settings)}")
    try:
        return int(arguments.act(arguments) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    check = commands.add_parser("check", help="say whether this machine can carry the lab (exit 3: no)")
    check.set_defaults(act=_check, nodes=1)
    up = commands.add_parser("up", help="bring hosts up; adds those that are missing")
    up.add_argument("--nodes", type=int, default=4)
    up.add_argument("--engine", choices=lifecycle.ENGINES, default="sim")
    up.set_defaults(act=_up)
    commands.add_parser("down", help="end and remove everything").set_defaults(act=_down)
    commands.add_parser("status", help="what runs").set_defaults(act=_status)

    knob = commands.add_parser("knob", help="set knobs: knob HOST|all [--tag TAG] key=value …; without any, list them")
    knob.add_argument("host", nargs="?")
    knob.add_argument("settings", nargs="*", metavar="key=value")
    knob.add_argument("--tag")
    knob.add_argument("--clear", action="store_true", help="forget what was set for HOST (all: for every host)")
    knob.set_defaults(act=_knob)

    for name, (action, text) in ON_HOST.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("host")
        if name == "power-cut":
            command.add_argument("--leave-off", action="store_true", help="do not boot it again")
        if name == "disk-fill":
            command.add_argument("--leave", type=int, default=0, metavar="BYTES", help="bytes to leave free")
        if name == "link-rate":
            command.add_argument("mbit", type=float, help="Mbit/s towards the host; 0 lifts the limit")
        if name == "gpu":
            command.add_argument("mode", choices=gpu.MODES)
        command.set_defaults(act=action)

    fault = commands.add_parser("hub-fault", help="make the Hub stand-in misbehave; 'clear' ends it")
    fault.add_argument("kind", choices=(*hub_faults.KINDS, "clear"))
    fault.add_argument("--match", default="*", help="a pattern for the request's path")
    fault.add_argument("--times", type=int, default=0, help="how often (0: always)")
    fault.add_argument("--status", type=int, default=429)
    fault.set_defaults(act=_hub_fault)
    for name, action in (("pause", faults.pause_service), ("resume", faults.resume_service)):
        service = commands.add_parser(name, help=f"{name} the registry or the hub")
        service.add_argument("service", choices=faults.SERVICES)
        service.set_defaults(act=lambda arguments, action=action: action(arguments.service))

    shell = commands.add_parser("ssh", help="run a command on a host as its user")
    shell.add_argument("host")
    shell.add_argument("command", nargs="+")
    shell.set_defaults(act=_ssh)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    wrong = machine.obstacle(arguments.nodes)
    print(wrong or "This machine can carry the lab.", file=sys.stderr if wrong else sys.stdout)
    return CANNOT if wrong else 0


def _up(arguments: argparse.Namespace) -> int:
    if machine.obstacle(arguments.nodes):
        return _check(arguments)
    started = time.monotonic()
    state = lifecycle.up(arguments.nodes, arguments.engine, lambda text: print(f"lab: {text}", flush=True))
    took = time.monotonic() - started
    print(f"lab: {len(state.hosts)} hosts are up after {took:.1f} s; {lifecycle.STATE} describes them")
    return 0


def _down(_: argparse.Namespace) -> int:
    left = lifecycle.down()
    for line in left:
        print(f"lab: could not remove {line}", file=sys.stderr)
    if not left:
        print("lab: nothing is left")
    return 1 if left else 0


def _status(_: argparse.Namespace) -> None:
    print("\n".join(lifecycle.status()))


def _knob(arguments: argparse.Namespace) -> None:
    if arguments.clear:
        host = None if arguments.host in (None, control.ALL) and not arguments.tag else arguments.host
        control.clear_knobs(host, arguments.tag)
    if arguments.settings:
        settings = {}
        for setting in arguments.settings:
            name, equals, value = setting.partition("=")
            if not equals:
                raise LabError(f"{setting!r} is no setting; write key=value, for example slow_load_s=20")
            settings[name] = value
        control.set_knobs(arguments.host, arguments.tag, **settings)
    for scope, values in sorted(control.knobs().items()):
        print(f"{scope}: " + " ".join(f"{name}={value}" for name, value in values.items()))


def _hub_fault(arguments: argparse.Namespace) -> None:
    if arguments.kind == "clear":
        hub_faults.set_faults()
        return
    fault = hub_faults.Fault(arguments.kind, match=arguments.match, times=arguments.times, status=arguments.status)
    hub_faults.set_faults(fault)


def _ssh(arguments: argparse.Namespace) -> int:
    result = ssh(host_named(arguments.host), " ".join(arguments.command), timeout_s=600, check=False)
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
