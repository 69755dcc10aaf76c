"""To whom a process belongs, told by its control group: pure.

Only what nobody owns any more may be ended by somebody else: killing the core of a service restarts it, and killing a
colleague's run is harm (vllm#29472, vllm#53836 show engines that run without any container).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from sparknode.base.shape import Count

_CONTAINER = re.compile(
    r"/docker-[0-9a-f]+\.scope|/docker/|/(?:snap\.)?docker[\w.]*\.service|containerd|nerdctl|libpod|podman|crio|kubepods"
    r"|/lxc[./]|lxc\.payload|machine\.slice|nspawn|incus|buildkit"
)
_DOCKER_ID = re.compile(r"/docker[-/]([0-9a-f]{64})(?![0-9a-f])")
_UNIT = re.compile(r"/([^/\s,]+\.(?:service|scope))(?=[/\s,]|$)")
_UID = re.compile(r"/user-(\d{1,10})\.slice")
_MANAGER = re.compile(r"user@\d+\.service|init\.scope")
DELETED = " (deleted)"


@dataclass(frozen=True)
class Owner:
    """`kind` is container, unit, user-unit, session, gone (nobody owns it any more) or unknown."""

    kind: str
    # Its systemd unit.
    unit: str | None = None
    uid: Count | None = None


def owner(cgroup: str, running: Collection[str] | None) -> Owner:
    """Who owns what runs in a control group; `running` are the ids of Docker's containers, where they are known."""
    user = _UID.search(cgroup)
    uid = int(user[1]) if user else None
    if cgroup.endswith(DELETED):
        return Owner("gone")
    if _CONTAINER.search(cgroup):
        dead = (match := _DOCKER_ID.search(cgroup)) and running is not None and match[1] not in running
        return Owner("gone" if dead else "container", None, uid)
    units = [name for name in _UNIT.findall(cgroup) if not _MANAGER.fullmatch(name)]
    if units:
        kind = ("user-unit" if units[-1].endswith(".service") else "session") if user else "unit"
        return Owner(kind, units[-1], uid)
    # A slice holds units and never processes of its own: the unit of what is found in one is gone.
    return Owner("gone" if cgroup.endswith(".slice") else "unknown", None, uid)
