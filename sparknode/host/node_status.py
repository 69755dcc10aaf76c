"""The fleet's view of this node: what is staged, what serves, what is under way, how it ended last."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sparknode.base import dockerd, locks, parse
from sparknode.base.files import read_object
from sparknode.base.parse import json_rows
from sparknode.base.paths import READY_UNIT, Paths
from sparknode.base.process import Completed
from sparknode.base.shape import Node, written
from sparknode.base.system import Host, System, asking
from sparknode.errors import Refused
from sparknode.host import docker, units
from sparknode.host.drift import Drift, folder_problems, name_drift, read_stamp, unit_drift
from sparknode.state import journal, lease, orders
from sparknode.state.described import described
from sparknode.state.journal import Attempt, Record
from sparknode.state.release import Release
from sparknode.state.releases import load, load_linked
from sparknode.state.status import Ended, Failure, NodeStatus, Phase, Proof, Readiness, Serving, StagedModel, UnderWay

# By when programs have to answer.
DEADLINE_S = 10.0
CONTAINER_NAME = "sparkfleet-serve"
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "container": docker.container_argv(CONTAINER_NAME),
    "images": dockerd.question("/images/json"),
    "units": (*units.SHOW_ARGV, READY_UNIT, "--property=Names"),
}


def report(host: Host) -> dict[str, Any]:
    """What `sparknode status` prints."""
    return fleet(host, asking(host.system, QUESTIONS, DEADLINE_S)())


def fleet(host: Host, answers: Mapping[str, Completed]) -> dict[str, Any]:
    """The document's `fleet` object: a NodeStatus, with lease and look as they were written, which hold more."""
    records, _ = history(host.paths)
    look = look_since(journal.last_ended(records), last_look(host))
    return {**written(status(host, answers, records)), "lease": lease.holder(host), "watch": look}


def status(host: Host, answers: Mapping[str, Completed], records: list[Record]) -> NodeStatus:
    """How this node stands, out of the answers to QUESTIONS, the files and the journal; but for lease and look."""
    paths = host.paths
    current, back = load_linked(paths, "current"), load_linked(paths, "previous")
    tags = images(answers["images"], repositories(paths))
    moved = moved_name(host.system, current, tags)
    return NodeStatus(
        releases=tuple(paths.staged()),
        current=paths.linked("current"),
        previous=paths.linked("previous"),
        verified=paths.linked("verified"),
        serving=serving(host, current, answers, moved),
        activation=under_way(paths, records),
        last=ended(journal.last_ended(records)),
        proof=proof(records, paths.linked("verified")),
        failed_releases={
            name: Failure(_text(bad, "gate"), _text(bad, "error"), _text(bad, "t"))
            for name, bad in journal.known_bad(records).items()
        },
        out_of_rotation=paths.out_of_rotation.exists(),
        verify_timer=paths.verify_timer.is_symlink(),
        readiness=readiness(paths) if answers_readiness(answers["units"]) else None,
        history=tuple(plain(attempt) for attempt in journal.attempts(records) if attempt.ended)[-20:],
        release=described(current) if current else None,
        back=described(back) if back else None,
        models=models(paths),
        images=tuple(name for name in tags if not (moved and current and name == current.image.reference)),
    )


def answers_readiness(done: Completed) -> bool:
    """Does systemd call the program that answers active? It is that once it listens."""
    return parse.units(done.stdout).get(READY_UNIT, {}).get("ActiveState") == "active" if done.ok else False


def readiness(paths: Paths) -> Readiness | None:
    """Where this host is to answer whether requests may come; None where it is off, or would be after a boot."""
    found = read_object(paths.readiness)
    if found is None or not paths.ready_enabled.is_symlink():
        return None
    try:
        return Node(found, "readiness").build(Readiness)
    except Refused:
        return None


def history(paths: Paths) -> tuple[list[Record], str | None]:
    """The journal's records, or why they can't be read."""
    try:
        return journal.read(paths), None
    except OSError as problem:
        return [], problem.strerror


def serving(
    host: Host, current: Release | None, answers: Mapping[str, Completed], moved: list[Drift]
) -> Serving | None:
    """What runs, and how that and what a start would bring differ from the current release; None where nothing may."""
    found, state = docker.read_lookup(answers["container"]), units.read_state(answers["units"])
    if found.found is None and state and not state.exists:
        return None
    if current is None:
        ours, drift = False, [Drift("no release is current here")]
    else:
        differences = [Drift(text) for text in docker.drift(host.system, current, found)]
        ours, drift = not differences, unit_drift(host.paths, current, state) + differences + moved
    return Serving(
        release=current.id if current and ours else None,
        unit=state.active if state else "unknown",
        container_started_at=found.text("State", "StartedAt") or None,
        image_id=found.text("Image") or None,
        drift=tuple(one.text for one in drift),
        restarts=tuple(one.text for one in drift if one.restarts),
    )


def last_look(host: Host) -> Record | None:
    return read_object(host.paths.watch)


def look_since(last: Attempt | None, look: Record | None) -> Record | None:
    """The look, unless an activation has ended since: what it complained of may be what was mended."""
    if last is None or look is None:
        return look
    seen, changed = journal.seconds_of(look.get("t")), journal.seconds_of(last.last.get("t"))
    return None if seen is not None and changed is not None and seen <= changed else look


def under_way(paths: Paths, records: list[Record]) -> UnderWay | None:
    """The activation that has not ended."""
    order = orders.pending(paths)
    if order is None:
        return None
    attempt = journal.attempt(records, order.activation)
    return UnderWay(
        release=order.release,
        state=attempt.state if attempt else journal.LEASED,
        since=attempt.since if attempt else None,
        rollout=order.rollout or None,
        operator=order.operator or None,
        alive=locks.held(paths),
    )


def ended(attempt: Attempt | None) -> Ended | None:
    """How the last activation that ended did end, with the figures of its gates."""
    if attempt is None:
        return None
    forth = attempt.forth
    phases = tuple(Phase(phase["state"], _text(phase, "t")) for phase in attempt.phases)
    return replace(plain(attempt), load_s=forth.load_s, figures=forth.figures, phases=phases)


def plain(attempt: Attempt) -> Ended:
    keys = ("t", "release", "rollout", "operator", "intent", "error")
    told: dict[str, Any] = {key: _text(attempt.last, key) for key in keys}
    return Ended(state=attempt.state, before=_text(attempt.last, "from"), seconds=attempt.seconds, **told)


def _text(record: Record, key: str) -> str | None:
    """A text of the journal; a line of it that something else wrote must not hide how the host stands."""
    value = record.get(key)
    return value if isinstance(value, str) and value else None


def proof(records: list[journal.Record], verified: str | None) -> Proof | None:
    """The figures with which the verified release was proven last, also on the way back to it."""
    way = journal.proof_of(records, verified) if verified else None
    return Proof(verified, way.load_s, way.figures) if way else None


def models(paths: Paths) -> tuple[StagedModel, ...]:
    """The models that were proven here and still stand, each file at its size."""
    found = []
    for repo, commit, _ in paths.stamps():
        stamp = read_stamp(paths, repo, commit)
        if stamp and not folder_problems(paths.model_dir(repo, commit), stamp):
            found.append(StagedModel(repo, commit))
    return tuple(found)


_OURS = re.compile(r"(?P<repository>.+):sha256-(?P<digest>[0-9a-f]{64})")


def images(done: Completed, repositories: Collection[str] = ()) -> dict[str, str]:
    """The local tags under which releases start their images, each with the id that it stands for.

    Others have such tags too (signatures, referrers): ours name the digest of the image itself, or stand in a
    repository of a release here, since Docker forgets the digests of an image that was loaded from a file.
    """
    found = {}
    for row in json_rows(done.stdout) if done.ok else []:
        for name in docker.texts(row.get("RepoTags")):
            tag = _OURS.fullmatch(name)
            digests = [text.rpartition("@sha256:")[2] for text in docker.texts(row.get("RepoDigests"))]
            if tag and (tag["digest"] in digests or tag["repository"] in repositories):
                found[name] = str(row.get("Id"))
    return dict(sorted(found.items()))


def repositories(paths: Paths) -> set[str]:
    """The repositories that releases here take their images from."""
    found = set()
    for name in paths.staged():
        with suppress(Refused):
            found.add(load(paths, name).image.repository)
    return found


def moved_name(system: System, current: Release | None, tags: Mapping[str, str]) -> list[Drift]:
    """Why the next start would run another image than the release says, where somebody gave its name to one."""
    name = current.image.reference if current else ""
    if current is None or tags.get(name, name) in {name, *current.image.image_ids}:
        return []
    # The id alone may differ between Docker's image stores; then the digest decides.
    if docker.is_image_of(system, current, docker.image(system, name)):
        return []
    return name_drift(current, tags[name])
