"""One run over the fleet: each host's settings and release, the waves, and what the nodes answered.

What each host shall run is planned once a run, before any host is asked (see `sparkfleet.deploy.session`), from the
inventory's data alone; the waves are planned once all nodes were asked.
"""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sparkfleet import grouping
from sparkfleet.errors import FleetError, LockError, RefusedError, SettingsError
from sparkfleet.inventory.entry import HostEntry
from sparkfleet.inventory.pace import Pace
from sparkfleet.inventory.settings import Settings, parse_settings
from sparkfleet.preflight.seen import Seen
from sparkfleet.release import lockfile
from sparkfleet.release.lockfile import Lock
from sparkfleet.release.release import Compiled, compile_release
from sparkfleet.release.rules import Finding
from sparkfleet.rollout import rollback
from sparkfleet.rollout.intents import FROM_INVENTORY, Intent
from sparkfleet.rollout.verdict import Progress
from sparkfleet.rollout.waves import Member, first_obstacle, least_of, plan_waves
from sparknode.state.described import Described, described
from sparknode.state.release import Release
from sparknode.state.status import NodeStatus


@dataclass(frozen=True)
class HostPlan:
    """What the inventory asks of a host.

    Looking, restarting and going back need no release of the inventory's; `made` then may be why there is none, which
    whoever asks for the release after all gets to see.
    """

    entry: HostEntry
    settings: Settings
    made: tuple[Lock, Compiled] | FleetError

    @property
    def lock(self) -> Lock:
        return self._made()[0]

    @property
    def compiled(self) -> Compiled:
        return self._made()[1]

    def _made(self) -> tuple[Lock, Compiled]:
        if isinstance(self.made, FleetError):
            raise self.made
        return self.made

    @property
    def release(self) -> Release:
        return self.compiled.release


@dataclass
class FleetRun:
    """The plan of a run and, as it goes on, what each node said."""

    hosts: dict[str, HostPlan]
    pace: Pace
    intent: Intent = "deploy"
    rollout: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    operator: str = field(default_factory=lambda: f"{_user()}@{socket.gethostname()}")
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    nodes: dict[str, Seen] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    waves: list[list[str]] = field(default_factory=list)
    # How many hosts of the inventory --limit and --exclude left out.
    outside: int = 0
    # What hosts shall serve where that is not the inventory's: the node's own description of one of its releases.
    targets: dict[str, Described] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    # Whether any host lacks what a step of staging brings, once it was asked for.
    lacking: dict[str, bool] = field(default_factory=dict)
    # Why weights did not come, by host; None until they were brought.
    sync_problems: dict[str, str] | None = None

    def statuses(self) -> dict[str, NodeStatus]:
        return {name: self.status(name) for name in self.nodes}

    def wanted(self, name: str) -> str:
        """Return the id of the release that a host shall serve."""
        return self.target(name).id

    def target(self, name: str) -> Described:
        """Return the release that a host shall serve, as a node describes one."""
        return self.targets[name] if name in self.targets else described(self.hosts[name].release)

    def status(self, name: str) -> NodeStatus:
        """Return how a node stood when it was last read; one that could not be read has nothing."""
        return self.nodes[name].status if name in self.nodes else NodeStatus()


def _user() -> str:
    """Return the login; a container may run under a number that no passwd entry names."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def plan_run(entries: list[HostEntry], intent: Intent = "deploy") -> FleetRun:
    """Plan a run over the hosts, in inventory order.

    Raises FleetError with the reasons of every host that cannot be planned, so that all are read at once.
    """
    _refuse_same_address(entries)
    made: dict[str, tuple[Lock, Compiled] | FleetError] = {}
    hosts: dict[str, HostPlan] = {}
    problems: list[tuple[str, FleetError]] = []
    for entry in entries:
        try:
            hosts[entry.name] = plan_host(entry, False, made)
        except FleetError as error:
            problems.append((entry.name, error))
    _refuse(problems, len(entries))
    run = FleetRun(hosts, _pace(hosts), intent)
    if intent in FROM_INVENTORY:
        require_releases(run)
    return run


def require_releases(run: FleetRun) -> None:
    """Raise FleetError where the inventory's release of a host cannot be made."""
    problems = [(name, plan.made) for name, plan in run.hosts.items() if isinstance(plan.made, FleetError)]
    _refuse(problems, len(run.hosts))


def _refuse(problems: list[tuple[str, FleetError]], hosts: int) -> None:
    """Raise what is wrong, each thing once with the hosts that have it."""
    parts = [(place, name, part) for name, error in problems for place, part in enumerate(error.parts())]
    # What was chosen comes first, then what is wrong with it: as each error has them, and for all hosts together.
    said = [(name, part.removeprefix(f"{name}: ")) for _, name, part in sorted(parts, key=lambda part: part[0])]
    if said:
        raise FleetError("\n".join(grouping.lines(said, hosts)))


def plan_host(
    entry: HostEntry, required: bool = True, made: dict[str, tuple[Lock, Compiled] | FleetError] | None = None
) -> HostPlan:
    """Compile what one host shall run; raises FleetError when that is required and cannot be done.

    `made` holds what was compiled for other hosts: those that are set alike share it, since it takes some milliseconds.
    """
    settings = parse_settings(entry.name, entry.data)
    made = {} if made is None else made
    key = repr(settings)
    if key not in made:
        try:
            made[key] = _compile(settings)
        except FleetError as error:
            made[key] = error
    found = made[key]
    if required and isinstance(found, FleetError):
        raise found
    return HostPlan(entry, settings, found)


def _compile(settings: Settings) -> tuple[Lock, Compiled]:
    catalog = settings.catalog()
    locked = lockfile.read(settings.lock_path, catalog)
    try:
        compiled = compile_release(
            catalog, locked, settings.choice, settings.deployment, settings.gpu_injection, settings.operation
        )
    except RefusedError as refusal:
        if locked is not None or not refusal.reasons:
            raise
        # Known by now, and the next thing to be refused otherwise.
        lacking = (
            f"lock: {settings.lock_file} is not there\n  next: run `python -m sparkfleet lock` and commit the file"
        )
        what, reasons = refusal.parts()[0], [*refusal.reasons, lacking]
        raise RefusedError(what, refusal.expected, refusal.remedy, reasons) from None
    if locked is None or compiled.unlocked:
        raise LockError(
            f"{settings.lock_file} has no digest or commit for {', '.join(compiled.unlocked)}",
            "a lock that names the bytes of everything a host runs",
            "run `python -m sparkfleet lock` and commit the file",
        )
    return locked, compiled


def _refuse_same_address(entries: list[HostEntry]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        other = seen.setdefault(entry.address, entry.name)
        if other != entry.name:
            raise SettingsError(
                f"{other} and {entry.name} have the same address {entry.address}",
                "one inventory entry a machine",
                "remove one of them: two entries would roll the same machine twice",
            )


def _pace(hosts: Mapping[str, HostPlan]) -> Pace:
    """Return the one pace of the run; hosts that ask for different ones cannot share waves."""
    paces = {name: plan.settings.pace for name, plan in hosts.items()}
    first, pace = next(iter(paces.items()), ("", Pace()))
    for name, other in paces.items():
        key = pace.differs_from(other)
        if key:
            raise SettingsError(
                f"{key} is {getattr(pace, key)!r} on {first} and {getattr(other, key)!r} on {name}",
                "one value for all hosts of a run",
                f"set {key} in group_data/all.py, give --data {key}=…, or roll the groups one by one with --limit",
            )
    return pace


def settle_waves(run: FleetRun) -> None:
    """Decide the waves from what the nodes said; only hosts that shall change are in one.

    Raises FleetError when the run must not start: a release that is known to be bad on a host, nothing to go back to,
    or too few hosts that would serve.
    """
    if run.intent == "deploy":
        # What a host without an answer serves is not known; preflight refuses it.
        changing = [name for name in run.nodes if not run.status(name).runs(run.wanted(name))]
        _refuse_known_bad(run, changing)
    else:
        run.targets = rollback.targets(run.intent, run.statuses(), _silence(run))
        changing = [name for name in run.hosts if name in run.targets]
    members = [_member(run.hosts[name], run.status(name)) for name in changing]
    run.waves = plan_waves(members, run.pace, len(run.hosts))
    run.progress.before = {name: run.status(name) for name in changing}
    reason = first_obstacle(run.waves, serving(run), run.pace)
    if reason:
        raise FleetError(reason, "enough hosts that serve throughout", _remedy(run))


def serving(run: FleetRun) -> dict[str, bool]:
    """Return which hosts of the run serve, as far as they said; one without an answer counts as down."""
    return {name: run.status(name).serves for name in run.hosts}


def _silence(run: FleetRun) -> dict[str, str]:
    """Return why hosts could not be read."""
    return {name: node.error for name, node in run.nodes.items() if not node.facts}


def _remedy(run: FleetRun) -> str:
    if run.outside and least_of(run.pace.min_serving, len(run.hosts)) >= len(run.hosts):
        return (
            f"the {run.outside} hosts that --limit or --exclude left out are not counted: leave fewer out, or set "
            "min_serving for this run, e.g. --data min_serving=0"
        )
    return "fix the hosts that are down, or set min_serving or max_unavailable for this run with --data"


def refuse_to_undo(run: FleetRun, given: Collection[str]) -> None:
    """Raise RefusedError where a deploy would undo a rollback: somebody took these hosts off a release for a reason,
    and going forward again needs a decision in writing. `given` holds the settings of the command line.
    """
    if run.intent != "deploy" or "image_tag" in given:
        return
    for name in (name for wave in run.waves for name in wave):
        undone, old = rollback.undone(run.status(name), run.target(name)), run.status(name).release
        if undone and run.hosts[name].settings.roll_forward != run.wanted(name):
            raise RefusedError(
                f"{name} would roll forward again: {undone}, and the inventory still names it",
                "the choice in writing",
                f'to stay, write image_tag = "{old.image_tag if old else None}" into '
                f'group_data/all.py; to go forward, roll_forward = "{run.wanted(name)}", or give it with --data',
            )


def _member(plan: HostPlan, status: NodeStatus) -> Member:
    return Member(plan.entry.name, is_canary(plan), status.serves, status.healthy)


def is_canary(plan: HostPlan) -> bool:
    return plan.settings.canary_group is not None and plan.settings.canary_group in plan.entry.groups


def _refuse_known_bad(run: FleetRun, names: list[str]) -> None:
    known = []
    for name in names:
        wanted = run.wanted(name)
        failed = run.status(name).failure(wanted)
        if failed and run.hosts[name].settings.retry_release != wanted:
            known.append((name, f"release {wanted} failed here at {failed.t}: {failed.error}"))
    if known:
        raise FleetError(
            "\n".join(grouping.lines(known, len(run.hosts))),
            "a release that has not failed its gates on the host",
            f"choose another image_tag, or try it again with --data retry_release={run.wanted(known[0][0])}",
        )


def installed(node: Seen) -> str | None:
    """Return the hash of the node's program that is installed there, where one is."""
    return node.facts.sparknode.installed_sha256 if node.facts else None


def staged(run: FleetRun, name: str, program_sha256: str) -> bool:
    """Say whether everything of a host's release is on it and proven, and the way back has its images."""
    plan, node, status = run.hosts[name], run.nodes[name], run.status(name)
    return (
        installed(node) == program_sha256
        and plan.compiled.id in status.releases
        and plan.release.image.reference in status.images
        and not (node.facts and node.facts.docker.lost)
        and {(one.repo, one.commit) for one in plan.release.artefacts} <= status.present
    )
