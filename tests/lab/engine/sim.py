"""What happens between a request and its tokens: pacing, drafts, counters, and the ways in which an engine fails."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.lab.engine.knobs import Knobs
from tests.lab.engine.metrics import Metrics
from tests.lab.engine.settings import Settings
from tests.lab.engine.speculation import Counters, Drafter
from tests.lab.engine.tags import Tag

PASSAGE = '''\
def binary_search(items: list[int], wanted: int) -> int:
    """Return the place of wanted in the sorted items, or -1 when it is not there."""
    low, high = 0, len(items) - 1
    while low <= high:
        middle = (low + high) // 2
        if items[middle] == wanted:
            return middle
        if items[middle] < wanted:
            low = middle + 1
        else:
            high = middle - 1
    return -1


def insertion_point(items: list[int], value: int) -> int:
    """Return where value must go so that the items stay sorted."""
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if items[middle] < value else (low, middle)
    return low


'''
TOKENS = re.findall(r"\s+|[^\s]{1,4}", PASSAGE)
LEAK = ("<|channel>", "thought\n", "<channel|>", "<|turn>", "model\n")
BLOCK = 16
PREFILL_TOKENS_PER_SECOND = 200_000.0


# A core that was killed leaves no reason behind.
KILLED = "killed"


class EngineDeadError(Exception):
    """The engine is gone; the server answers 500 and ends soon after."""


class ShutDownError(Exception):
    """The engine takes no new request because it is being shut down."""


@dataclass(frozen=True)
class Piece:
    text: str
    tokens: int
    finish_reason: str | None = None


def count_tokens(text: str) -> int:
    """About one token a word or four characters, whichever gives more."""
    return max(len(re.findall(r"\w+|[^\w\s]", text)), len(text) // 4)


class Engine:
    def __init__(self, settings: Settings, tag: Tag, metrics: Metrics, knobs: Callable[[], Knobs]) -> None:
        self.settings = settings
        self.metrics = metrics
        self.knobs = knobs
        self.dead: str | None = None
        self.died = threading.Event()
        self.draining = threading.Event()
        self.aborted = threading.Event()
        # The core was killed under the streams that outlived the shutdown timeout.
        self.lost = threading.Event()
        self.running_at_death = 0
        self._tag = tag
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(settings.max_num_seqs)
        self._running = 0
        self._waiting = 0
        self._served = 0
        self._cached: set[int] = set()
        length = settings.speculation.tokens if settings.speculation else 0
        self.counters = Counters.of(length)

    @property
    def running(self) -> int:
        return self._running + self._waiting

    def die(self, reason: str) -> None:
        if not self.dead:
            self.running_at_death = self.running
        self.dead = self.dead or reason
        self.died.set()

    def submit(self, prompt: str, prompt_tokens: int, max_tokens: int) -> Iterator[Piece]:
        """Generate; the last piece carries the finish reason. Counts in the metrics as vLLM does."""
        if self.dead:
            raise EngineDeadError(self.dead)
        if self.draining.is_set() or self.aborted.is_set():
            raise ShutDownError("cannot schedule new futures after shutdown")
        started = time.monotonic()
        # The API server takes a request, and a core that stands still never reports it.
        while self.knobs().core_stopped and not self.aborted.wait(0.1):
            pass
        self._count(waiting=1)
        with self._slots:
            self._count(waiting=-1, running=1)
            try:
                yield from self._generate(prompt, prompt_tokens, max_tokens, started)
            finally:
                self._count(running=-1)

    def _generate(self, prompt: str, prompt_tokens: int, max_tokens: int, started: float) -> Iterator[Piece]:
        knobs = self.knobs()
        self._fail_as_told(knobs)
        cached = self._prefill(prompt, prompt_tokens)
        self._pause(knobs.first_token_s + (prompt_tokens - cached) / PREFILL_TOKENS_PER_SECOND)
        self.metrics.observe("vllm:time_to_first_token_seconds", time.monotonic() - started)
        wanted = min(max_tokens, knobs.reply_tokens)
        reason = "length" if max_tokens <= knobs.reply_tokens else "stop"
        rate = self._rate(prompt_tokens, knobs)
        done, step = 0, 1
        while done < wanted:
            if self.aborted.is_set():
                reason = "abort"
                break
            began = time.monotonic()
            step = min(step, wanted - done)
            yield Piece(self._text(done, step, knobs), step)
            done += step
            self._tokens(step)
            if done < wanted:
                self._pause(step / knobs.tokens_per_second if knobs.tokens_per_second > 0 else 0.0)
                self._pause((knobs.slowdown - 1.0) * (time.monotonic() - began))
                step = self._draft(rate)
        self._finished(reason, prompt_tokens, done, started)
        yield Piece("", 0, reason)

    def _fail_as_told(self, knobs: Knobs) -> None:
        speculation = self.settings.speculation
        if speculation and speculation.poison:
            self.die(speculation.poison)
        if knobs.die_on_first_request:
            self.die("RuntimeError: the lab told this engine to die on its first request")
        limit = knobs.crash_at_concurrency
        if limit is not None and self._running >= limit:
            self.die(f"RuntimeError: CUDA error: an illegal memory access was encountered at {self._running} requests")
        if self.dead:
            raise EngineDeadError(self.dead)
        while self.knobs().hang_with_health_200 and not self.aborted.wait(0.2):
            if self.dead:
                raise EngineDeadError(self.dead)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.aborted.is_set() and not self.dead and (left := until - time.monotonic()) > 0:
            self.aborted.wait(min(left, 0.05))
        while self.lost.is_set():
            time.sleep(0.1)
        if self.dead:
            raise EngineDeadError(self.dead)

    def _rate(self, prompt_tokens: int, knobs: Knobs) -> float:
        drafter = Drafter(
            fixed=self._tag.drafter_fixed,
            prefix_caching=self.settings.prefix_caching,
            acceptance=knobs.acceptance,
            long_acceptance=knobs.long_acceptance,
            decay=knobs.acceptance_decay,
        )
        return drafter.rate(prompt_tokens, self._served)

    def _draft(self, rate: float) -> int:
        if not self.counters.positions:
            return 1
        with self._lock:
            kept = self.counters.step(rate)
            self._publish_counters()
        return kept

    def _publish_counters(self) -> None:
        prefix = "vllm:spec_decode_num_"
        self.metrics.set(f"{prefix}drafts_total", float(self.counters.drafts))
        self.metrics.set(f"{prefix}draft_tokens_total", float(self.counters.draft_tokens))
        self.metrics.set(f"{prefix}accepted_tokens_total", float(self.counters.accepted))
        for position, accepted in enumerate(self.counters.positions):
            self.metrics.set(f"{prefix}accepted_tokens_per_pos_total", float(accepted), position=str(position))

    def _prefill(self, prompt: str, prompt_tokens: int) -> int:
        """Count the prompt, and how much of it the prefix cache knows already."""
        hits = 0
        if self.settings.prefix_caching:
            step = max(len(prompt) * BLOCK // max(prompt_tokens, 1), 1)
            with self._lock:
                known = True
                for end in range(step, len(prompt) + 1, step):
                    block = hash(prompt[:end])
                    known = known and block in self._cached
                    hits += BLOCK if known else 0
                    self._cached.add(block)
            hits = min(hits, prompt_tokens)
            self.metrics.add("vllm:prefix_cache_queries_total", prompt_tokens)
            self.metrics.add("vllm:prefix_cache_hits_total", hits)
        self.metrics.add("vllm:prompt_tokens_total", prompt_tokens)
        self.metrics.add("vllm:prompt_tokens_cached_total", hits)
        self.metrics.observe("vllm:iteration_tokens_total", prompt_tokens - hits)
        return hits

    def _tokens(self, count: int) -> None:
        self.metrics.add("vllm:generation_tokens_total", count)
        self.metrics.observe("vllm:iteration_tokens_total", count)

    def _finished(self, reason: str, prompt_tokens: int, done: int, started: float) -> None:
        with self._lock:
            self._served += 1
        self.metrics.add("vllm:request_success_total", finished_reason=reason)
        self.metrics.observe("vllm:request_prompt_tokens", prompt_tokens)
        self.metrics.observe("vllm:request_generation_tokens", done)
        self.metrics.observe("vllm:e2e_request_latency_seconds", time.monotonic() - started)

    def _text(self, done: int, step: int, knobs: Knobs) -> str:
        if knobs.empty_text:
            return ""
        tokens = [TOKENS[index % len(TOKENS)] for index in range(done, done + step)]
        if knobs.leak_control_tokens and done == 0:
            tokens = [*LEAK, *tokens]
        return "".join(tokens)

    def _count(self, *, waiting: int = 0, running: int = 0) -> None:
        with self._lock:
            self._waiting += waiting
            self._running += running
            self.metrics.set("vllm:num_requests_waiting", float(self._waiting))
            self.metrics.set("vllm:num_requests_running", float(self._running))
            usage = self._running / max(self.settings.max_num_seqs, 1)
            self.metrics.set("vllm:kv_cache_usage_perc", round(min(usage, 1.0), 4))
