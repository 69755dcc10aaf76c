"""The one table of the fleet: a row a host, and what is to be said of it besides. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sparkfleet import grouping
from sparkfleet.rollout import compare
from sparkfleet.rollout.fleet_run import FleetRun
from sparknode.state.described import Described
from sparknode.state.journal import FAILED, REVERTED
from sparknode.state.status import Look, NodeStatus

HEADINGS = (
    "host",
    "state",
    "release",
    "image tag",
    "digest",
    "weights",
    "profile",
    "drafter",
    "up",
    "acceptance",
    "tok/s",
    "KV",
    "memory",
    "last rollout",
)
# What a narrow terminal does without, first to last.
DISPENSABLE = "digest,weights,profile,last rollout,KV,release,drafter,up,memory,tok/s,acceptance".split(",")
# From this many hosts on, those that are alike share a row.
CROWD = 24
COLORS = {"verified": "green", "unprovisioned": "yellow"}
NONE = "–"
KIB_PER_GIB = 1024 * 1024


def host_row(run: FleetRun, name: str, now: datetime | None = None) -> tuple[str, ...]:
    """Return the cells of a host, as text, in the order of HEADINGS."""
    node = run.status(name)
    watch = node.watch if node.watch and node.watch.release == node.current else Look()
    proven = compare.figure_of(node.figures, "acceptance-short")
    facts = run.nodes[name].facts
    memory = facts.memory.available_kib if facts else None
    started = node.serving.container_started_at if node.serving and node.serves else None
    cells: tuple[object, ...] = (
        name,
        state_of(run, name),
        (node.current or "")[:8],
        *(_of_release(node.release) if node.release else [None] * 5),
        _age(now or datetime.now(UTC), started) if started else None,
        _acceptance(watch.acceptance, proven),
        watch.tokens_per_second,
        _percent(watch.kv_use),
        f"{memory / KIB_PER_GIB:.1f} GiB" if memory is not None else None,
        f"{node.last.state} {str(node.last.t)[:16]}" if node.last else None,
    )
    return tuple(str(cell) if cell not in (None, "") else NONE for cell in cells)


def _of_release(release: Described) -> tuple[str, ...]:
    return (
        release.image_tag,
        (release.digest or "").removeprefix("sha256:")[:12],
        " ".join(commit[:7] for commit in (release.commits or {}).values()),
        release.profile,
        release.drafter_backend or "none",
    )


def state_of(run: FleetRun, name: str) -> str:
    """Return the host's state in a word or two."""
    if not run.nodes[name].facts:
        return "no answer"
    node = run.status(name)
    failed = node.last is not None and node.last.state == FAILED
    if node.activation:
        return node.activation.state
    if not node.current:
        return "failed" if failed else "unprovisioned"
    if not node.serves:
        return f"stopped ({node.serving.unit if node.serving else 'unknown'})"
    if drift(node):
        return "drift"
    if node.current != node.verified or failed:
        return "unverified"
    return "ailing" if node.watch and node.watch.complains else "verified"


def drift(node: NodeStatus) -> list[str]:
    """Return how the host differs from its release: what runs, the unit, and weights that changed or are gone."""
    if not node.current:
        return []
    commits = (node.release.commits if node.release else None) or {}
    gone = [repo for repo, commit in commits.items() if node.models is not None and (repo, commit) not in node.present]
    return [*node.drift, *(f"weights of {repo} are changed or missing" for repo in gone)]


def remarks(run: FleetRun, name: str) -> list[str]:
    """Return what is to be said about a host besides its row, a sentence each."""
    node = run.status(name)
    texts = [] if run.nodes[name].facts else [run.nodes[name].error]
    texts += [f"drift: {text}" for text in drift(node)]
    texts += [f"watch: {text}" for text in ((node.watch and node.watch.findings) or {}).values()]
    if node.activation:
        alive = "" if node.activation.alive else "; its worker is gone, the next deploy takes over"
        texts.append(f"release {node.activation.release} by {node.activation.operator}{alive}")
    if node.last and node.last.state in (REVERTED, FAILED):
        texts.append(f"last rollout {node.last.state}: {first_line(node.last.error) or 'no reason was written down'}")
    if node.out_of_rotation:
        texts.append("out of its rotation")
    return [f"{name}: {text}" for text in texts]


def first_line(text: object) -> str:
    return next((line for line in str(text or "").splitlines() if line.strip()), "")


def _age(now: datetime, started: object) -> str | None:
    try:
        seconds = (now - datetime.fromisoformat(str(started)[:19]).replace(tzinfo=UTC)).total_seconds()
    except ValueError:
        return None
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "0 min"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value * 100:.0f} %"


def _acceptance(now: float | None, proven: float | None) -> str | None:
    if proven is None:
        return None
    return f"{_percent(proven)} proven" if now is None else f"{_percent(now)} of {_percent(proven)}"


def arranged(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the rows with the odd ones first; in a crowd, verified hosts that are alike share one."""
    odd = [row for row in rows if row[1] != "verified"]
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for row in rows:
        if row[1] == "verified":
            groups.setdefault(row[1:8] if len(rows) > CROWD else row, []).append(row)
    return odd + [_shared(group) for group in groups.values()]


def _shared(rows: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    if len(rows) == 1:
        return rows[0]
    found = [f"{len(rows)}: {rows[0][0]} … {rows[-1][0]}"]
    for column in range(1, len(HEADINGS)):
        cells = {row[column] for row in rows}
        values = sorted(cells, key=lambda cell: (len(cell), cell))
        found.append(values[0] if len(cells) == 1 else _range(values[0], values[-1]))
    return tuple(found)


def _range(first: str, last: str) -> str:
    """Return both ends; what their ends have in common, such as a unit, once."""
    words, others = first.split(), last.split()
    while len(words) > 1 and words[-1] == others[-1]:
        words, others = words[:-1], others[:-1]
    return f"{' '.join(words)} … {last}"


def all_remarks(run: FleetRun) -> list[str]:
    """Return the remarks on every host, each said once."""
    names = [name for name in run.hosts if name in run.nodes]
    said = [(name, text.removeprefix(f"{name}: ")) for name in names for text in remarks(run, name)]
    return grouping.lines(said, len(run.hosts))


def proven(run: FleetRun, name: str) -> str | None:
    """Say how well proven the image is that a host serves: who saw it run, where and when."""
    release = run.status(name).release
    if release is None:
        return None
    return f"image {release.image_tag}: {run.hosts[name].settings.catalog().proven(release.image_tag)}"


def proofs(run: FleetRun) -> list[str]:
    """Return a sentence for each image that is served."""
    return sorted({text for name in run.hosts if name in run.nodes if (text := proven(run, name))})
