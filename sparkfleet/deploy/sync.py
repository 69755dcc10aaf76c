"""Weights for a whole run: fetched once, by a seed or the controller, then from host to host.

pyinfra calls `bring` for each host that lacks something; the first call does the work for all, and the others wait.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from pyinfra import logger
from pyinfra.api import Host, State
from pyinfra.api.exceptions import ConnectError

from sparkfleet.artefacts import download
from sparkfleet.artefacts.spread import Ways, look, spread
from sparkfleet.deploy import actions, session
from sparkfleet.errors import FleetError
from sparkfleet.node import remote
from sparkfleet.node.remote import Answer, ConnectionLost
from sparkfleet.rollout.fleet_run import FleetRun, HostPlan
from sparknode.base.shape import Node
from sparknode.errors import Refused
from sparknode.models import manifest as manifests
from sparknode.models.manifest import Manifest
from sparknode.state.status import StagedModel

SEEDS = 2
# How many of those that have a model give it: in a swarm its takers do most of the work.
GIVERS = 4
# How many hosts outside a --limit are asked whether they have what is missing.
OUTSIDE = 3
_bringing = BoundedSemaphore()


@dataclass(frozen=True)
class Reached:
    """A host behind pyinfra's connection, as `sparkfleet.artefacts.spread` needs it."""

    host: Host

    @property
    def name(self) -> str:
        return str(self.host.name)

    @property
    def address(self) -> str | None:
        return remote.peer_address(self.host)

    def call(self, arguments: Sequence[str], stdin: str | None = None, timeout_s: int | None = None) -> Answer:
        return remote.call(self.host, arguments, stdin=stdin, timeout_s=timeout_s)


def bring(state: State, host: Host) -> bool:
    """Bring what this host lacks, together with all others of the run."""
    run = session.run()
    with _bringing:
        if run.sync_problems is None:
            run.sync_problems = _bring_all(state, run)
    problem = run.sync_problems.get(host.name)
    if problem:
        host.log_styled(f"{problem}; what came is kept, so run the same command again", fg="red", log_func=logger.error)
    return problem is None


def missing(run: FleetRun, name: str) -> list[Manifest]:
    """Return the manifests of what a host lacks, the target before its drafter."""
    present = run.status(name).present
    return [one for one in download.manifests(run.hosts[name]) if _model(one) not in present]


def _bring_all(state: State, run: FleetRun) -> dict[str, str]:
    problems: dict[str, str] = {}
    active = {host.name for host in state.inventory.get_active_hosts()}
    wanted: dict[tuple[str, str], tuple[Manifest, list[str]]] = {}
    for name in run.hosts:
        if name not in active:
            problems[name] = "it left the run before"
            continue
        for manifest in missing(run, name):
            wanted.setdefault(_model(manifest), (manifest, []))[1].append(name)
    for manifest, names in wanted.values():
        takers = [name for name in names if name not in problems]
        try:
            problems |= _bring_one(state, run, manifest, takers) if takers else {}
        except FleetError as error:
            problems |= dict.fromkeys(takers, error.text())
    _bring_images(state, run, problems)
    return problems


def image_to_spread(run: FleetRun, name: str) -> bool:
    """Say whether the host lacks its image and shall have it from another host."""
    plan = run.hosts[name]
    lacks = plan.release.image.reference not in run.status(name).images
    return lacks and plan.settings.image_distribution == "spread"


def _bring_images(state: State, run: FleetRun, problems: dict[str, str]) -> None:
    """Have one host pull each image that several lack, and the others take it from there; who gets none pulls it."""
    wanted: dict[str, list[str]] = {}
    for name, plan in run.hosts.items():
        if name not in problems and image_to_spread(run, name):
            wanted.setdefault(plan.release.image.reference, []).append(name)
    for reference, takers in wanted.items():
        holders = [name for name, node in run.statuses().items() if reference in node.images]
        givers = [*holders, *(name for name in seeds(run) if name in takers), *takers]
        for giver in list(dict.fromkeys(givers))[:SEEDS]:
            others = [name for name in takers if name != giver]
            if not others or _spread_image(state, run, giver, others):
                break
        else:
            logger.warning(f"{reference}: each host pulls it")


def _spread_image(state: State, run: FleetRun, giver: str, others: list[str]) -> bool:
    """Have one host give its image to others; return False where it has none to give."""
    plan = run.hosts[others[0]]
    reference = plan.release.image.reference
    logger.info(f"{reference}: from {giver} to {', '.join(others)}")
    try:
        answer = _reach(state, giver).call(["sync", "image"], json.dumps(actions.stage_request(plan)))
    except ConnectionLost as lost:
        answer = Answer(False, "", str(lost))
    try:
        document = answer.document() if answer.ok else None
        offered = manifests.from_node(Node(document, "saved image")) if document else None
    except Refused as refused:
        answer, offered = Answer(False, "", str(refused)), None
    if offered is None:
        logger.warning(f"{giver} could not give {reference} ({answer.last_line})")
        return False
    peers = [_reach(state, name) for name in others]
    for name, why in spread(offered, [_reach(state, giver)], peers, _ways(plan), logger.info).items():
        logger.warning(f"{name} pulls {reference}: {why}")
    return True


def _bring_one(state: State, run: FleetRun, manifest: Manifest, takers: list[str]) -> dict[str, str]:
    plan = run.hosts[takers[0]]
    settings, repo = plan.settings, manifest.repo
    if settings.distribution == "controller":
        download.require_content(plan, repo)
        return _from_controller(state, run, manifest, takers)
    first = seeds(run)
    named = sorted(
        (name for name, node in run.statuses().items() if _model(manifest) in node.present),
        key=lambda name: name not in first,
    )
    holders = [_reach(state, name) for name in named[:GIVERS]]
    holders = holders or _outside(state, run, manifest)
    if not holders:
        download.require_content(plan, repo)
        if settings.fetch_on == "controller":
            seed = takers[0]
            problems = _from_controller(state, run, manifest, [seed])
            if problems or len(takers) == 1:
                return problems | dict.fromkeys((name for name in takers if name != seed), f"{seed} did not get it")
        else:
            seed = _fetch_on_seed(state, run, manifest, takers)
        holders, takers = [_reach(state, seed)], [name for name in takers if name != seed]
    if not takers:
        return {}
    logger.info(f"{repo}: from {', '.join(peer.name for peer in holders)} to {', '.join(takers)}")
    peers = [_reach(state, name) for name in takers]
    return spread(manifest, list(holders), peers, _ways(plan), logger.info)


def _model(model: Manifest | StagedModel) -> tuple[str, str]:
    return model.repo, model.commit


def _reach(state: State, name: str) -> Reached:
    return Reached(state.inventory.get_host(name))


def _outside(state: State, run: FleetRun, manifest: Manifest) -> list[Reached]:
    """Hosts that --limit left out and that have the model: they are read, and nothing on them is changed."""
    if len(run.hosts) == len(list(state.inventory)):
        return []
    group = next(iter(run.hosts.values())).settings.seed_group
    others = [host for host in state.inventory if host.name not in run.hosts]
    found = []
    for host in sorted(others, key=lambda host: group not in host.groups)[:OUTSIDE]:
        try:
            host.connect(show_errors=False, raise_exceptions=True)
            if _model(manifest) in map(_model, look(Reached(host)).models):
                found.append(Reached(host))
        # Whatever program such a host has, it is left alone.
        except (ConnectError, FleetError, Refused) as error:
            logger.info(f"{host.name} outside the --limit gives nothing: {error}")
    return found


def seeds(run: FleetRun) -> list[str]:
    """Return the hosts that download, in the order of trying: the group's, else the first of the run."""
    listed = [name for name, plan in run.hosts.items() if plan.settings.seed_group in plan.entry.groups]
    return listed or list(run.hosts)[:SEEDS]


def _fetch_on_seed(state: State, run: FleetRun, manifest: Manifest, takers: list[str]) -> str:
    """Have one seed download the model; raises FleetError when none could."""
    candidates = [name for name in seeds(run) if name in takers] or takers[:SEEDS]
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        raise FleetError(
            f"{manifest.repo} is on no host, and HF_HUB_OFFLINE is set", "a host that has it", "unset HF_HUB_OFFLINE"
        )
    reasons = []
    for name in candidates:
        host = state.inventory.get_host(name)
        request = download.fetch_request(run.hosts[name], manifest)
        try:
            answer = remote.call(host, ["fetch"], stdin=request, show=True)
        except ConnectionLost as lost:
            reasons.append(f"{name}: {lost}")
            continue
        if answer.ok:
            return name
        reasons.append(f"{name}: {answer.last_line}")
    raise FleetError("; ".join(reasons), f"one seed that downloads {manifest.repo}", "or set fetch_on to controller")


def _from_controller(state: State, run: FleetRun, manifest: Manifest, takers: list[str]) -> dict[str, str]:
    """Fetch here, and send to each; return why it did not come, by host."""
    data = {name: state.inventory.get_host(name).data.dict() for name in takers}
    refused = {name: why for name in takers if (why := _refusal(download.require_sending, name, data[name]))}
    able = [name for name in takers if name not in refused]
    if not able:
        return refused
    folder = download.ensure_fetched(run.hosts[able[0]], manifest)
    repo = manifest.repo
    sent = {name: gevent.spawn(_refusal, download.send, run.hosts[name], data[name], repo, folder) for name in able}
    gevent.joinall(list(sent.values()))
    return refused | {name: one.value for name, one in sent.items() if one.value}


def _refusal(act: Callable[..., None], *arguments: Any) -> str | None:
    try:
        act(*arguments)
    except FleetError as error:
        return error.text()
    return None


def _ways(plan: HostPlan) -> Ways:
    settings = plan.settings
    return Ways(
        distribution="auto" if settings.distribution == "controller" else settings.distribution,
        subnet=settings.spread_subnet,
        port=settings.spread_port,
        limit_bytes_s=settings.spread_limit_mb_s * 1e6,
        deadline_s=settings.spread_deadline_s,
        reserve_bytes=download.reserve(plan),
    )
