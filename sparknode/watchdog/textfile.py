"""The last look of the watch as a textfile for Prometheus' node exporter."""

from __future__ import annotations

from sparknode.base.files import atomic_write
from sparknode.base.paths import Paths
from sparknode.state.journal import Record

_GAUGES = {
    "frozen_s": ("tokens_frozen_seconds", "Time for which requests ran without producing a token.", 1.0),
    "running": ("requests_running", "Requests that the engine is working on.", 1.0),
    "acceptance": ("acceptance_ratio", "Drafted tokens that were accepted over the last window.", 1.0),
    "baseline": ("acceptance_baseline_ratio", "The same, when the release was verified on this host.", 1.0),
    "power_w": ("gpu_power_watts", "Power that the GPU draws.", 1.0),
    "available_kib": ("memory_available_bytes", "MemAvailable.", 1024.0),
    "stall": ("memory_stall_percent", "Share of the last 10 s in which all processes waited for memory.", 1.0),
    "gpu": ("gpu_visible", "Whether the container sees the GPU.", 1.0),
    "restarts_seen": ("unit_restarts", "Restarts of the serving unit that systemd counts.", 1.0),
    "circuit_open": ("watch_circuit_open", "The watchdog restarted the engine as often as it may.", 1.0),
}


def write_metrics(paths: Paths, look: Record, now: float, *, busy: bool, out: bool) -> None:
    """Replace the textfile in one step."""
    verdict = look.get("verdict")
    samples: list[tuple[str, str, str, float]] = [
        ("watch_time_seconds", "When the watch last looked.", "", now),
        ("watch_busy", "An activation or a rollout is at work on this host.", "", busy),
        ("out_of_rotation", "This host is taken out of its rotation.", "", out),
        ("current", "The release that serves.", f'{{release="{look.get("release") or ""}"}}', 1.0),
    ]
    if verdict in {"ok", "bad"}:
        samples.append(("watch_ok", "Nothing was found; absent while the watch does not judge.", "", verdict == "ok"))
    for name in look.get("findings") or {}:
        samples.append(("watch_finding", "What the watch found.", f'{{finding="{name}"}}', 1.0))
    for key, (name, about, factor) in _GAUGES.items():
        if isinstance(value := look.get(key), (bool, int, float)):
            samples.append((name, about, "", value * factor))
    lines: list[str] = []
    for name, about, labels, value in samples:
        kind = f"# TYPE sparkfleet_{name} gauge"
        lines += [] if kind in lines else [f"# HELP sparkfleet_{name} {about}", kind]
        lines.append(f"sparkfleet_{name}{labels} {value:.15g}")
    atomic_write(paths.metrics, ("\n".join(lines) + "\n").encode())
