"""`sparknode watch`: one look at the running engine, each minute.

`/health` is 200 with an engine that hangs, so life is told by what its core counts, compared with the look before, and
by one token where it had nothing to do. Only a hang and a known collapse are acted upon, both with a restart, and not
more often than the release allows: after that it stops trying and reports it. A look judges always but while an
activation works on this host; it acts only when nobody else changes the host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields

from sparknode import NOT_JUDGED
from sparknode.activate import rotation
from sparknode.base import locks, parse
from sparknode.base.files import atomic_write, read_text
from sparknode.base.parse import Sample
from sparknode.base.paths import ACTIVATE_UNIT, Paths
from sparknode.base.system import Host, Tell, asking
from sparknode.engine.client import Counters, Engine, api_key, counters, in_flight, total
from sparknode.host import docker, memory, units
from sparknode.host.node_status import last_look
from sparknode.state import journal, lease, orders, releases
from sparknode.state.journal import Record
from sparknode.state.release import Release, WatchRules
from sparknode.watchdog import liveness
from sparknode.watchdog.liveness import Glimpse, Pulse
from sparknode.watchdog.textfile import write_metrics

ASK_S, TOKEN_S = 5.0, 30.0
HOUR_S = 3600.0
NOTES_AN_HOUR = 6
# A program that hangs on a GPU can't be killed, so it is not called again each minute.
MUTE_S = 900.0
_BEAT = (
    "vllm:iteration_tokens_total_count",
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)


@dataclass(frozen=True)
class Sight:
    """What one look saw, by the names under which it is noted; None where it could not be told."""

    unit: str | None
    restarts_seen: int
    container: str | None
    available_kib: int | None
    stall: float | None
    power_w: float | None
    gpu: bool | None
    # Programs that did not end in time.
    hung: tuple[str, ...]
    answers: bool
    running: float | None
    requests: float | None
    beat: tuple[float, ...]
    counts: Counters | None
    generated: float | None
    kv_use: float | None


def beat_of(samples: Sequence[Sample]) -> tuple[float, ...]:
    """What moves with each step of the engine's core; empty when it counts nothing."""
    values = [total(samples, name) for name in _BEAT]
    return () if values[0] is None and values[1] is None else tuple(value or 0.0 for value in values)


def see(host: Host, release: Release) -> Sight:
    """Ask everything at once, so that a program that hangs costs one deadline."""
    name = release.container.name
    questions: Mapping[str, Sequence[str]] = {
        "unit": units.SHOW_ARGV,
        "container": docker.container_argv(name),
        "power": parse.POWER_ARGV,
        "gpu": docker.gpu_argv(name),
    }
    muted = mutes(last_look(host) or {}, host.system.monotonic())
    answers = asking(host.system, {key: argv for key, argv in questions.items() if key not in muted}, ASK_S)
    engine = Engine(host.system, release, api_key(host.paths, release))
    samples = engine.metrics()
    speaks = bool(samples) or engine.health().status is not None
    done = answers()
    state = units.read_state(done["unit"])
    power = done.get("power")
    return Sight(
        unit=state.active if state else None,
        restarts_seen=state.restarts if state else 0,
        container=docker.read_lookup(done["container"]).text("Id"),
        available_kib=parse.meminfo(read_text(host.paths.meminfo) or "").get("MemAvailable"),
        stall=parse.stall(read_text(host.paths.root / "proc/pressure/memory") or ""),
        power_w=parse.watts(power.stdout) if power and power.ok else None,
        gpu=docker.read_gpu(done["gpu"])[0] if "gpu" in done else None,
        hung=tuple(sorted(key for key in ("gpu", "power") if key in done and done[key].timed_out)),
        answers=speaks,
        running=total(samples, "vllm:num_requests_running"),
        requests=in_flight(samples),
        beat=beat_of(samples),
        counts=counters(samples),
        generated=total(samples, "vllm:generation_tokens_total"),
        kv_use=total(samples, "vllm:kv_cache_usage_perc"),
    )


def look(host: Host, tell: Tell) -> int:
    """Look once, note it, and act where that is the known cure; always 0, because looking itself did not fail."""
    release = releases.load_linked(host.paths, "current")
    before = last_look(host) or {}
    holder = lease.holder(host)
    held = locks.held(host.paths)
    busy = held or holder is not None
    if release is None or release.watched is None:
        after: Record = {"verdict": "off", "findings": {}}
        if orders.pending(host.paths):
            orders.resume(host)
    elif held and unfinished(host.paths):
        # What an activation does to the engine is its own business; the look after it begins anew.
        after = {"verdict": "busy", "findings": {}, "restarts": before.get("restarts", [])}
    else:
        after = Judgement(host, release, release.watched, before).judge(tell)
    now = host.system.now()
    after = {"schema": 1, "t": journal.timestamp(now), "release": release.id if release else None, **after}
    atomic_write(host.paths.watch, json.dumps(after, ensure_ascii=False).encode())
    write_metrics(host.paths, after, now, busy=busy, out=rotation.is_out(host))
    return 0


def unfinished(paths: Paths) -> str | None:
    """The activation that has not ended, in words."""
    order = orders.pending(paths)
    cut = journal.attempt(journal.read(paths), order.activation) if order else None
    return f"{order}, which stands in `{cut.state if cut else journal.LEASED}`" if order else None


def mutes(record: Record, mono: float) -> dict[str, float]:
    """The programs that are not called, and until when; a boot begins anew."""
    found = record.get("muted")
    if not isinstance(found, dict):
        return {}
    times = {str(key): float(until) for key, until in found.items() if isinstance(until, (int, float))}
    return {key: until for key, until in times.items() if mono < until <= mono + MUTE_S}


def pulse_of(record: Record) -> Pulse | None:
    """The pulse that a look left behind, or None where there is none that can be read."""
    found = record.get("pulse")
    try:
        values = {field.name: found[field.name] for field in fields(Pulse)}  # type: ignore[index]
        return Pulse(**{**values, "beat": tuple(float(value) for value in values["beat"]), "t": float(values["t"])})
    except (TypeError, KeyError, ValueError):
        return None


class Judgement:
    """One look held against the one before."""

    def __init__(self, host: Host, release: Release, rules: WatchRules, before: Record) -> None:
        self._host, self._release, self._rules = host, release, rules
        self._now, self._mono = host.system.now(), host.system.monotonic()
        former = before if before.get("release") == release.id else {}
        records = journal.read(host.paths)
        self._last = journal.last_attempt(records)
        self._unfinished = unfinished(host.paths)
        self._sight = see(host, release)
        self._muted = {**mutes(before, self._mono), **dict.fromkeys(self._sight.hung, self._mono + MUTE_S)}
        # A container that Docker doesn't name now is no other one.
        same = self._sight.container in {None, former.get("container")}
        # A new engine counts from zero; only what was done about the one before still matters.
        self._before: Record = former if same else {}
        self._former = former
        self._restarts = [at for at in former.get("restarts", []) if isinstance(at, (int, float))]
        way = journal.proof_of(records, release.id)
        figure = (way.figures.get("acceptance-short") or {}) if way else {}
        self._baseline = figure.get("figure") if figure.get("verdict") != NOT_JUDGED else None
        self.findings: dict[str, str] = {}
        self.cure: str | None = None

    @property
    def _proven(self) -> bool:
        """Was this release proven here, and is that the last that happened?"""
        ended = self._last is None or self._last.state in {journal.COMMITTED, journal.REVERTED}
        return ended and not self._unfinished and self._host.paths.linked("verified") == self._release.id

    def judge(self, tell: Tell) -> Record:
        sight = self._sight
        pulse = self._pulse()
        window, rate = self._acceptance()
        self._host_findings()
        if self.cure is None:
            # What has nothing to do with the engine's life says nothing of whether a restart cured it.
            self._restarts = [at for at in self._restarts if self._now - at < self._rules.forget_s]
        if self._unfinished:
            self._resume()
        elif not self.findings:
            # That it makes tokens is no proof of an engine whose gates failed.
            self._give_back(tell)
        after: Record = {
            **{name: value for name, value in vars(sight).items() if name not in {"counts", "beat", "answers"}},
            "container": sight.container or self._before.get("container"),
            "verdict": "ok" if not self.findings else "bad",
            "findings": self.findings,
            "pulse": asdict(pulse),
            "frozen_s": round(pulse.frozen_s, 1),
            "muted": self._muted,
            "window": window,
            "acceptance": rate,
            "tokens_per_second": self._speed(),
            "baseline": self._baseline,
            "restarts": self._restarts,
            "steady_t": self._forget_starts(),
        }
        acted = self._act(after, tell)
        after["noted"] = self._former.get("noted") or {"at": [], "findings": []}
        if not acted:
            self._note_change(after, tell)
        after["circuit_open"] = bool(self.cure) and len(self._restarts) >= self._rules.max_restarts
        return after

    def _forget_starts(self) -> float:
        """Since when this engine runs; after an hour systemd is to forget earlier starts, or each one of a year would
        make the pause before the next one longer (RestartSteps= of the unit).
        """
        since = self._before.get("steady_t")
        since = since if isinstance(since, float) and self._sight.unit == "active" else self._now
        if self._sight.restarts_seen and self._now - since >= HOUR_S:
            units.order(self._host.system, "reset-failed")
        return since

    def _resume(self) -> None:
        """End an activation whose worker is gone: its unit goes on where it was cut off, or takes the release back."""
        self.findings["activation"] = f"{self._unfinished} has no worker; {ACTIVATE_UNIT} is started to end it"
        # Whoever works on it holds the lock, and starting a unit that runs changes nothing.
        done = orders.resume(self._host)
        if not done.ok:
            self.findings["activation"] += f", which failed: {done.why}"

    def _give_back(self, tell: Tell) -> None:
        """Put a proven host back into its rotation, unless a rollout has come to it since the look began."""
        if not self._proven or not rotation.is_out(self._host) or lease.holder(self._host):
            return
        with suppress(locks.Busy), locks.hold(self._host.paths, "the watch gives this host back to its rotation"):
            returned = rotation.give_back(self._host) if self._unchanged() else None
            if returned and rotation.is_out(self._host):
                self.findings["rotation"] = returned
            elif returned:
                self._note(tell, returned)

    def _unchanged(self) -> bool:
        """Is this host's activation still the one that it was when the look began?"""
        last = journal.last_attempt(journal.read(self._host.paths))
        then = self._last.last if self._last else None
        same = (last.last if last else None) == then and not unfinished(self._host.paths)
        return same and self._host.paths.linked("current") == self._release.id

    def _pulse(self) -> Pulse:
        sight = self._sight
        seen = Glimpse(self._mono, sight.answers, sight.requests, sight.beat, sight.power_w)
        if sight.unit != "active":
            # Its port is closed while it stops and while it loads.
            self.findings["unit"] = f"the serving unit is {sight.unit or 'unknown to systemd'}"
            return liveness.after(None, seen, self._rules.stalled_s, lambda: None)
        former = pulse_of(self._before)
        pulse = liveness.after(former, seen, self._rules.stalled_s, self._ask_token)
        if former and former.answers and sight.answers and not (former.beat or sight.beat):
            self.findings["metrics"] = "the engine answers and its /metrics can't be read, so a hang would go unseen"
        if not sight.answers and pulse.beat:
            self.findings["silent"] = "the engine answered before and gives no answer now"
        self.cure = liveness.stalled(pulse, sight.power_w, self._rules)
        if self.cure:
            self.findings["stalled"] = self.cure
        elif pulse.unanswered:
            self.findings["unanswered"] = "nothing runs, and a request for one token had no answer"
        return pulse

    def _ask_token(self) -> bool | None:
        """Does the idle engine make a token? One that moves at all lives, however slow it is."""
        engine = Engine(self._host.system, self._release, api_key(self._host.paths, self._release))
        answered = engine.answers(min(TOKEN_S, self._rules.stalled_s))
        if answered is False:
            moved = beat_of(engine.metrics())
            return bool(moved) and moved != self._sight.beat
        return answered

    def _acceptance(self) -> tuple[list[float] | None, float | None]:
        """The rate over the last whole window of drafts, against the floor."""
        counts, rate = self._sight.counts, self._before.get("acceptance")
        if counts is None:
            return None, None
        now = [counts.drafts, counts.draft_tokens, counts.accepted]
        window = self._before.get("window")
        if not isinstance(window, list) or len(window) != 3 or window[0] > now[0]:
            return now, None
        drafts, tokens, accepted = (new - float(old) for new, old in zip(now, window, strict=True))
        if drafts >= self._rules.window_drafts and tokens > 0:
            window, rate = now, round(accepted / tokens, 4)
        floor = self._rules.min_acceptance_rate
        if rate is not None and floor is not None and rate < floor:
            proven = f" (verified with {100 * self._baseline:.1f} %)" if self._baseline is not None else ""
            said = f"{100 * rate:.1f} % of drafted tokens accepted, expected at least {100 * floor:.1f} %{proven}"
            self.findings["acceptance"] = said
            if self._rules.restart_on_collapse:
                self.cure = self.cure or said
        return window, rate

    def _speed(self) -> float | None:
        """Tokens per second of all requests since the look before."""
        before, since = self._before.get("generated"), pulse_of(self._before)
        if self._sight.generated is None or not isinstance(before, (int, float)) or not since or self._mono <= since.t:
            return None
        return round(max(0.0, self._sight.generated - before) / (self._mono - since.t), 1)

    def _host_findings(self) -> None:
        sight = self._sight
        least = self._rules.min_available_gib
        left = sight.available_kib / memory.KIB_PER_GIB if sight.available_kib is not None else None
        if left is not None and left < least:
            self.findings["memory"] = f"{left:.1f} GiB available, expected at least {least:g} GiB"
        if sight.stall is not None and sight.stall > self._rules.max_stall_percent:
            self.findings["pressure"] = f"everything waited for memory {sight.stall:g} % of the last 10 s"
        if sight.gpu is False:
            self.findings["gpu"] = "the container does not see the GPU; restart it, and look at the driver"
        seen = self._former.get("restarts_seen")
        if isinstance(seen, int) and (more := sight.restarts_seen - seen) > 0:
            self.findings["restarts"] = f"systemd restarted the engine {more} times since the last look"

    def _act(self, after: Record, tell: Tell) -> bool:
        """Restart the engine where that is the known cure and the breaker allows it."""
        # A restart that is still going on is not a second reason for one, and an unfinished activation goes first.
        if self.cure is None or self._sight.unit != "active" or self._unfinished:
            return False
        if len(self._restarts) >= self._rules.max_restarts:
            times = len(self._restarts)
            tries = f"restarted {times} times without a cure" if times else "no restart is allowed"
            self.findings["circuit"] = f"not restarting: {tries}; look at it, then activate the release again"
            return False
        try:
            # An activation can't begin meanwhile, and one that began since the look goes first.
            with locks.hold(self._host.paths, "the watch restarts the engine"):
                if not self._unchanged():
                    return False
                self._restarts.append(self._now)
                # Remembered before it's done: a watch that dies here, or can't write, must not restart for ever.
                atomic_write(self._host.paths.watch, json.dumps({"release": self._release.id, **after}).encode())
                self._note(tell, f"restarting the engine: {self.cure}")
                done = units.order(self._host.system, "restart", "--no-block")
        except locks.Busy:
            return False
        if not done.ok:
            self.findings["restart"] = f"the restart could not be ordered: {done.why}"
        # The new engine's counters begin anew.
        after.update(window=None, pulse=None, acceptance=None)
        return True

    def _note_change(self, after: Record, tell: Tell) -> None:
        """Write into the journal what is found now, if that is news; not each turn of a figure near its limit."""
        noted, now = after["noted"], sorted(self.findings)
        lately = [at for at in noted["at"] if self._now - at < HOUR_S]
        if now == noted["findings"] or len(lately) >= NOTES_AN_HOUR:
            return
        was = ", ".join(noted["findings"]) or "nothing"
        self._note(tell, "; ".join(self.findings.values()) or f"well again (it was: {was})")
        after["noted"] = {"at": [*lately, self._now], "findings": now}

    def _note(self, tell: Tell, text: str) -> None:
        # A disk that is full is no reason to look away.
        with suppress(OSError):
            journal.event(self._host.paths, self._now, "watch", release=self._release.id, note=text)
        tell(f"watch: {text}")
