"""How many files this process may have open: each connection is one for as long as the run lasts."""

from __future__ import annotations

from sparkfleet.errors import SettingsError

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

# What a run holds open beside its connections.
RESERVE = 48
# Enough for any fleet that one controller can drive; a hard limit may be "unlimited", and some systems refuse that.
WANTED = 65536


def raise_limit() -> int:
    """Raise the soft limit as far as this user may; return how many hosts it leaves room for."""
    if resource is None:
        return WANTED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS refuses more than kern.maxfilesperproc, whatever its hard limit says.
        for limit in (wanted, 10240):
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, wanted), hard))
                break
            except (ValueError, OSError):
                continue
    return room()


def room() -> int:
    """Return how many connections may be open at the same time."""
    if resource is None:
        return WANTED
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return WANTED if soft == resource.RLIM_INFINITY else max(1, soft - RESERVE)


def provide(hosts: int) -> None:
    """Raise SettingsError where there is no room for these hosts' connections."""
    if hosts > room():
        raise SettingsError(
            f"{hosts} hosts need {hosts + RESERVE} open files, and this process may have {room() + RESERVE}",
            "a connection a host that stays open",
            f"`ulimit -n {hosts + RESERVE}` (as root, if it is refused), or a part of the fleet: --limit GROUP",
        )
