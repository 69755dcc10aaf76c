"""What a run is about to do, for the person who decides whether it shall. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from sparkfleet.grouping import whom
from sparkfleet.preflight.seen import Seen
from sparkfleet.release.differences import differences
from sparkfleet.rollout.fleet_run import FleetRun
from sparkfleet.rollout.rollback import stays
from sparkfleet.text import some
from sparknode.state.status import NodeStatus

# Of many waves, so many are shown, and the last two.
SHOWN = 8
TITLES = {"deploy": "rollout", "rollback": "rollback", "restart": "rolling restart"}


def lines(run: FleetRun) -> list[str]:
    """Return the plan: who goes from where to where and what that changes, downloads, waves, capacity and time."""
    changing = [name for wave in run.waves for name in wave]
    found = [f"Plan: {TITLES[run.intent]} {run.rollout} by {run.operator}"]
    if not changing:
        served = "every host serves what it should, verified"
        return [*found, f"  nothing to do: {served if run.intent == 'deploy' else 'no host has a release to change'}"]
    for text, names in _grouped((name, "\n".join(_change(run, name))) for name in changing):
        found += [f"  {whom(names, len(run.hosts))}: {text}"]
    for text, names in _grouped((name, _left(run, name)) for name in run.nodes if name not in changing):
        found += [f"  {whom(names, len(run.hosts))}: {text}"]
    return [*found, *_downloads(run, changing), *_waves(run)]


def _change(run: FleetRun, name: str) -> Iterator[str]:
    old, new = run.status(name).release, run.target(name)
    if run.intent == "restart":
        yield f"release {new.id} ({new.image_tag}) is started again"
        return
    before = f"{old.image_tag} (release {old.id})" if old else "nothing"
    if old and old.id == new.id:
        how = "is started again" if restarts(run, name) else "is put right without a restart"
        yield f"{before} {how}: {'; '.join(_why_again(run.status(name)))}"
        return
    yield f"{before} → {new.image_tag} (release {new.id})"
    yield from (f"      {line}" for line in differences(old, new))
    if run.intent == "deploy":
        compiled = run.hosts[name].compiled
        yield from (f"      set for this host: {words}" for words in compiled.overridden)
        facts = run.nodes[name].facts
        kib = facts.memory.total_kib if facts else None
        yield from (f"      {words}" for words in compiled.remarks(kib * 1024 if kib else None))
        warnings = (finding for finding in compiled.findings if finding.severity == "warn")
        yield from (f"      note: {finding.text().splitlines()[0]}" for finding in warnings)


def restarts(run: FleetRun, name: str) -> bool:
    """Say whether the host's engine is stopped: not where what serves is right, and only what it starts from is not."""
    node = run.status(name)
    as_wanted = node.current == node.verified == run.target(name).id
    in_place = run.intent != "restart" and as_wanted and node.drift and node.serving and node.serving.restarts == ()
    return not (in_place and not node.activation)


def _why_again(node: NodeStatus) -> Sequence[str]:
    if node.serving and node.drift:
        return node.serving.restarts or node.drift
    if node.verified != node.current:
        return ["it is not verified here"]
    return [f"its unit is {node.serving.unit if node.serving else 'not there'}"]


def _left(run: FleetRun, name: str) -> str:
    if run.intent == "rollback":
        return f"stays: {stays(name, run.statuses())}"
    return "stays: serves nothing that is verified" if run.intent == "restart" else "stays: serves its release already"


def _downloads(run: FleetRun, names: Sequence[str]) -> Iterator[str]:
    """What is not on the nodes yet. Going back and restarting need nothing: nodes keep what they were verified with."""
    if run.intent != "deploy":
        yield "  downloads: none"
        return
    wanted: dict[str, list[str]] = {}
    for name in names:
        plan, node = run.hosts[name], run.status(name)
        image = plan.release.image
        if image.reference not in node.images:
            locked = plan.lock.images[plan.release.image_tag].platforms[image.architecture]
            size = f"{locked.compressed_bytes / 1e9:.1f} GB"
            if plan.release.id in _left_behind(run.nodes[name]):
                size += " (or out of Docker's other image store)"
            wanted.setdefault(f"image {plan.release.image_tag}, {size}", []).append(name)
        for row in plan.release.artefacts:
            if (row.repo, row.commit) not in node.present:
                size = f"{plan.lock.repos[row.repo].total_bytes / 1e9:.1f} GB"
                wanted.setdefault(f"{row.repo}@{row.commit[:12]}, {size}", []).append(name)
    if not wanted:
        yield "  downloads: none"
    for what, hosts in wanted.items():
        yield f"  downloads: {what}, to {whom(hosts, len(run.hosts))}"


def _left_behind(node: Seen) -> set[str]:
    """Return the releases whose images went with a change of Docker's image store, and are in the other one still."""
    return {row.release for row in node.facts.docker.lost if row.elsewhere} if node.facts else set()


def _waves(run: FleetRun) -> Iterator[str]:
    now = {name: run.status(name).serves for name in run.nodes}
    least, total, unknown = len(now), 0.0, False
    for number, wave in enumerate(run.waves, start=1):
        down = [name for name in wave if restarts(run, name)]
        up = sum(now.values()) - sum(now[name] for name in down)
        least = min(least, up)
        times = [seconds for name in down if (seconds := expected_s(run, name)) is not None]
        unknown |= bool(down) and not times
        total += max(times, default=0.0) + (run.pace.pause_between_waves_s if number < len(run.waves) else 0)
        lasts = f", about {minutes(max(times))}" if times else ""
        if number <= SHOWN or number > len(run.waves) - 2:
            yield f"  wave {number} of {len(run.waves)}: {some(wave)}; {up} of {len(now)} hosts serve meanwhile{lasts}"
        elif number == SHOWN + 1:
            rest = sum(map(len, run.waves[SHOWN:-2]))
            yield f"  … {len(run.waves) - SHOWN - 2} more waves, {rest} hosts"
        now.update(dict.fromkeys(wave, True))
    if run.outside:
        yield f"  {run.outside} hosts of the inventory are not part of this run, and are not counted"
    known = "its duration is not known: no host has done this before" if unknown else f"about {minutes(total)} in all"
    yield f"  never fewer than {least} of {len(now)} hosts serve; {known}"


def expected_s(run: FleetRun, name: str) -> float | None:
    """Return how long a host's activation will take: the median of its own, or else of the fleet's, committed ones."""
    own = _durations(run.status(name))
    every = own or [seconds for other in run.nodes for seconds in _durations(run.status(other))]
    return median(every) if every else None


def _durations(node: NodeStatus) -> list[float]:
    return [one.seconds for one in node.committed if one.seconds is not None]


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _grouped(pairs: Any) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for name, text in pairs:
        groups.setdefault(text, []).append(name)
    return list(groups.items())
