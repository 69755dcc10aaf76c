"""`sparknode watch`: one look at the running engine, each minute, without asking it to generate anything.

`/health` is 200 with an engine that hangs, so life is told by its token counters, compared with those of the look
before. Only two findings are acted upon, both with a restart, and not more often than the release says: after that it
stops trying and says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sparknode import docker, journal, lease, lock, memory, parse, rotation, units
from sparknode import release as releases
from sparknode.chronicle import Tell
from sparknode.engine import Counters, Engine, api_key, counters, total
from sparknode.files import atomic_write, read_text
from sparknode.fleet import last_look
from sparknode.journal import Record
from sparknode.release import Release, WatchRules
from sparknode.system import Host, asking
from sparknode.textfile import write_metrics

ASK_S = 5.0
HOUR_S = 3600.0
NOTES_AN_HOUR = 6
_HEARTBEAT = ("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total")


@dataclass(frozen=True)
class Sight:
    """What one look saw, by the names under which it is noted; None where it could not be told."""

    unit: str | None
    restarts_seen: int
    container: str | None
    available_gib: float | None
    stall: float | None
    power_w: float | None
    gpu: bool | None
    running: float | None
    beat: float | None
    counts: Counters | None
    generated: float | None
    kv_use: float | None


def see(host: Host, release: Release) -> Sight:
    """Ask everything at once, so that a program that hangs costs one deadline."""
    name = release.container.name
    questions: Mapping[str, Sequence[str]] = {
        "unit": units.SHOW_ARGV,
        "container": docker.container_argv(name),
        "power": parse.POWER_ARGV,
        "gpu": docker.gpu_argv(name),
    }
    answers = asking(host.system, questions, ASK_S)
    samples = Engine(host.system, release, api_key(host.paths, release)).metrics()
    done = answers()
    state = units.read_state(done["unit"])
    beats = [value for name in _HEARTBEAT if (value := total(samples, name)) is not None]
    return Sight(
        unit=state.active if state else None,
        restarts_seen=state.restarts if state else 0,
        container=docker.read_lookup(done["container"]).text("Id"),
        available_gib=memory.available_gib(host.paths),
        stall=parse.stall(read_text(host.paths.root / "proc/pressure/memory") or ""),
        power_w=parse.watts(done["power"].stdout) if done["power"].ok else None,
        gpu=docker.read_gpu(done["gpu"])[0],
        running=total(samples, "vllm:num_requests_running"),
        beat=sum(beats) if beats else None,
        counts=counters(samples),
        generated=total(samples, "vllm:generation_tokens_total"),
        kv_use=total(samples, "vllm:kv_cache_usage_perc"),
    )


def look(host: Host, tell: Tell) -> int:
    """Look once, note it, and act where that is the known cure; always 0, because looking itself did not fail."""
    release = releases.load_linked(host.paths, "current")
    before = last_look(host) or {}
    holder = lease.holder(host)
    busy = lock.held(host.paths) or holder is not None
    if release is None or release.watch is None:
        after: Record = {"verdict": "off", "findings": {}}
    elif busy:
        # What an activation does to the engine is its own business; the look after it begins anew.
        after = {"verdict": "busy", "findings": {}, "restarts": before.get("restarts", [])}
    else:
        after = Judgement(host, release, release.watch, before).judge(tell)
    now = host.system.now()
    after = {"schema": 1, "t": journal.timestamp(now), "release": release.id if release else None, **after}
    atomic_write(host.paths.watch, json.dumps(after, ensure_ascii=False).encode())
    write_metrics(host.paths, after, now, busy=busy)
    return 0


class Judgement:
    """One look held against the one before."""

    def __init__(self, host: Host, release: Release, rules: WatchRules, before: Record) -> None:
        self._host, self._release, self._rules = host, release, rules
        self._now = host.system.now()
        self._sight = see(host, release)
        same = before.get("release") == release.id and before.get("container") == self._sight.container
        # A new engine counts from zero; only what was done about the one before still matters.
        self._before: Record = before if same else {}
        self._former: Record = before if before.get("release") == release.id else {}
        self._restarts = [at for at in self._former.get("restarts", []) if isinstance(at, (int, float))]
        records = journal.read(host.paths)
        last = journal.last_attempt(records)
        self._proven = last is None or last.state != journal.FAILED
        way = journal.proof_of(records, release.id)
        self._baseline = (way.figures.get("acceptance-short") or {}).get("figure") if way else None
        self.findings: dict[str, str] = {}
        self.cure: str | None = None

    def judge(self, tell: Tell) -> Record:
        sight = self._sight
        frozen_s, beat_t = self._heartbeat()
        window, rate = self._acceptance()
        self._host_findings()
        if self.cure is None and not self.findings:
            self._restarts = [at for at in self._restarts if self._now - at < self._rules.forget_s]
            # That it makes tokens is no proof of an engine whose gates failed.
            self._give_back(tell)
        after: Record = {
            **{name: value for name, value in vars(sight).items() if name != "counts"},
            "verdict": "ok" if not self.findings else "bad",
            "findings": self.findings,
            "beat": sight.beat if sight.beat is not None else self._before.get("beat"),
            "beat_t": beat_t,
            "frozen_s": frozen_s,
            "window": window,
            "acceptance": rate,
            "tokens_per_second": self._speed(),
            "baseline": self._baseline,
            "restarts": self._restarts,
        }
        acted = self._act(after, tell)
        after["noted"] = self._former.get("noted") or {"at": [], "findings": []}
        if not acted:
            self._note_change(after, tell)
        after["circuit_open"] = bool(self.cure) and len(self._restarts) >= self._rules.max_restarts
        return after

    def _give_back(self, tell: Tell) -> None:
        """Put a proven host back into its rotation, unless a roll-out has come to it since the look began."""
        if not self._proven or not rotation.is_out(self._host) or lease.holder(self._host):
            return
        with suppress(lock.Busy), lock.hold(self._host.paths):
            returned = rotation.give_back(self._host)
            if returned:
                self._note(tell, returned)

    def _heartbeat(self) -> tuple[float, float]:
        """For how long the engine has had requests and made no token of them, and since when."""
        sight, moved = self._sight, self._now
        if sight.unit != "active":
            self.findings["unit"] = f"the serving unit is {sight.unit or 'unknown to systemd'}"
        elif sight.beat is None and self._before.get("beat") is not None:
            self.findings["silent"] = "the engine answered before and gives no metrics now"
        if sight.running and sight.beat is not None and sight.beat == self._before.get("beat"):
            moved = float(self._before.get("beat_t") or self._now)
        frozen = max(0.0, self._now - moved)
        wedged = sight.power_w is None or sight.power_w < self._rules.wedged_power_w
        if frozen > 0 and frozen >= self._rules.stalled_s * (1.0 if wedged else self._rules.slow_factor):
            watts = f", the GPU draws {sight.power_w:.0f} W" if sight.power_w is not None else ""
            self.cure = f"{sight.running:.0f} requests run and no token came for {frozen:.0f} s{watts}"
            self.findings["stalled"] = self.cure
        return round(frozen, 1), moved

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
            proven = f" (proven with {100 * self._baseline:.1f} %)" if self._baseline is not None else ""
            said = f"{100 * rate:.1f} % of drafted tokens accepted, expected at least {100 * floor:.1f} %{proven}"
            self.findings["acceptance"] = said
            if self._rules.restart_on_collapse:
                self.cure = self.cure or said
        return window, rate

    def _speed(self) -> float | None:
        """Tokens per second of all requests since the look before."""
        before, since = self._before.get("generated"), journal.seconds_of(self._before.get("t"))
        if self._sight.generated is None or not isinstance(before, (int, float)) or since is None or self._now <= since:
            return None
        return round(max(0.0, self._sight.generated - before) / (self._now - since), 1)

    def _host_findings(self) -> None:
        sight = self._sight
        least = self._rules.min_available_gib
        if sight.available_gib is not None and sight.available_gib < least:
            self.findings["memory"] = f"{sight.available_gib:.1f} GiB available, expected at least {least:g} GiB"
        if sight.stall is not None and sight.stall > self._rules.max_stall_percent:
            self.findings["pressure"] = f"everything waited for memory {sight.stall:g} % of the last 10 s"
        if sight.gpu is False:
            self.findings["gpu"] = "the container does not see the GPU; restart it, and look at the driver"
        seen = self._former.get("restarts_seen")
        if isinstance(seen, int) and (more := sight.restarts_seen - seen) > 0:
            self.findings["restarts"] = f"systemd restarted the engine {more} times since the last look"

    def _act(self, after: Record, tell: Tell) -> bool:
        """Restart the engine where that is the known cure and the breaker allows it."""
        # A restart that is still going on is not a second reason for one.
        if self.cure is None or self._sight.unit != "active":
            return False
        if len(self._restarts) >= self._rules.max_restarts:
            times = len(self._restarts)
            tries = f"restarted {times} times without a cure" if times else "no restart is allowed"
            self.findings["circuit"] = f"not restarting: {tries}; look at it, then activate the release again"
            return False
        try:
            # An activation can't begin meanwhile, and one that began since the look goes first.
            with lock.hold(self._host.paths):
                self._restarts.append(self._now)
                self._note(tell, f"restarting the engine: {self.cure}")
                # Remembered before it's done: a watch that dies here must not restart for ever.
                atomic_write(self._host.paths.watch, json.dumps({"release": self._release.id, **after}).encode())
                done = units.order(self._host.system, "restart", "--no-block")
        except lock.Busy:
            return False
        if not done.ok:
            self.findings["restart"] = f"the restart could not be ordered: {done.why}"
        # The new engine's counters begin anew.
        after.update(window=None, beat=None, acceptance=None)
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
        journal.event(self._host.paths, self._now, "watch", release=self._release.id, note=text)
        tell(f"watch: {text}")
