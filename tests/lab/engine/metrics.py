"""vLLM's exposition: the recorded one of the nearest version as the form, the simulation's own figures filled in."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_OWN_LABELS = ("engine", "model_name")
Labels = tuple[tuple[str, str], ...]

_GAUGE_DEFAULTS: dict[str, dict[Labels, float]] = {"vllm:engine_sleep_state": {(("sleep_state", "awake"),): 1.0}}


def template(fixtures: Path, version: tuple[int, ...]) -> str:
    name = "metrics-0.22.1-offline.txt" if version < (0, 24) else "metrics-fresh.txt"
    return (fixtures / name).read_text(encoding="utf-8")


class Metrics:
    """Counters, gauges and histograms by name; those that nothing sets stay 0, as on a fresh server."""

    def __init__(self, form: str, model_name: str, draft_length: int | None) -> None:
        self._lines = _keep(form.splitlines(), draft_length)
        self._model_name = model_name
        self._started = time.time()
        self._lock = threading.Lock()
        self._values: dict[tuple[str, Labels], float] = defaultdict(float)
        self._observed: dict[str, Counter[float]] = defaultdict(Counter)

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        with self._lock:
            self._values[name, tuple(sorted(labels.items()))] += amount

    def set(self, name: str, value: float, **labels: str) -> None:
        with self._lock:
            self._values[name, tuple(sorted(labels.items()))] = value

    def observe(self, name: str, value: float) -> None:
        with self._lock:
            self._observed[name][value] += 1

    def render(self) -> str:
        with self._lock:
            return "\n".join(self._rendered(line) for line in self._lines) + "\n"

    def _rendered(self, line: str) -> str:
        match = _SAMPLE.match(line)
        if line.startswith("#") or match is None:
            return line
        name, inside, _ = match.groups()
        labels = dict(_LABEL.findall(inside or ""))
        if "model_name" in labels:
            labels["model_name"] = self._model_name
        own = {key: value for key, value in labels.items() if key not in _OWN_LABELS}
        value = self._value(name, own, line)
        shown = ",".join(f'{key}="{text}"' for key, text in labels.items())
        return f"{name}{{{shown}}} {value}" if inside else f"{name} {value}"

    def _value(self, name: str, labels: dict[str, str], line: str) -> float | str:
        if name == "process_start_time_seconds" or name.endswith("_created"):
            return self._started
        if name.endswith("_info") or name.startswith(("python_", "process_")):
            return line.rsplit(" ", 1)[1]
        key = tuple(sorted(labels.items()))
        if (name, key) in self._values:
            return self._values[name, key]
        for suffix in ("_bucket", "_count", "_sum"):
            base = name.removesuffix(suffix)
            if base != name and base in self._observed:
                return _histogram(self._observed[base], suffix, labels.get("le", ""))
        return _GAUGE_DEFAULTS.get(name, {}).get(key, 0.0)


def _histogram(observed: Counter[float], suffix: str, bound: str) -> float:
    if suffix == "_count":
        return float(observed.total())
    if suffix == "_sum":
        return float(sum(value * times for value, times in observed.items()))
    limit = float("inf") if bound == "+Inf" else float(bound)
    return float(sum(times for value, times in observed.items() if value <= limit))


def _keep(lines: list[str], draft_length: int | None) -> list[str]:
    """Without a drafter vLLM has no speculation metrics at all; with one, a series for each drafted position."""
    kept: list[str] = []
    for line in lines:
        if "vllm:spec_decode" not in line or (draft_length is not None and 'position="' not in line):
            kept.append(line)
        elif draft_length is not None and 'position="0"' in line:
            kept += [line.replace('position="0"', f'position="{position}"') for position in range(draft_length)]
    return kept
