"""The engine's HTTP side: what it says of itself, one chat, and its counters.

Facts of vLLM 0.22 to 0.33 that this rests on: the port refuses until the engine is ready; `/health` is 200 with an
engine that hangs or is poisoned; a request that races a shutdown ends with 200, «abort» and no tokens; thinking is in
`message.reasoning`; the speculation counters start at zero with the engine, so only differences mean anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from sparknode.base import parse
from sparknode.base.files import read_text
from sparknode.base.http import Answer, Request
from sparknode.base.parse import Sample
from sparknode.base.paths import Paths
from sparknode.base.system import System
from sparknode.state.release import Release

QUICK_S = 10.0
GUARDED = "/v1/"
GOOD_ENDS = ("stop", "length", "tool_calls")
_SPECULATION = "vllm:spec_decode_num_"


@dataclass(frozen=True)
class Chat:
    """One answer; `problem` says why it does not count as one.

    `empty` marks an answer in good order that says nothing, `late` one that did not come in time; `deltas` and
    `first_s` are those of a stream.
    """

    problem: str | None = None
    text: str = ""
    reasoning: str = ""
    calls: tuple[dict[str, Any], ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    empty: bool = False
    late: bool = False
    deltas: int = 0
    first_s: float | None = None


@dataclass(frozen=True)
class Counters:
    """The speculation counters, summed over engines."""

    drafts: float = 0.0
    draft_tokens: float = 0.0
    accepted: float = 0.0
    positions: dict[int, float] = field(default_factory=dict)

    def since(self, before: Counters) -> Counters:
        positions = {at: value - before.positions.get(at, 0.0) for at, value in sorted(self.positions.items())}
        drafts, tokens = self.drafts - before.drafts, self.draft_tokens - before.draft_tokens
        return Counters(drafts, tokens, self.accepted - before.accepted, positions)

    @property
    def went_back(self) -> bool:
        return min(self.drafts, self.draft_tokens, self.accepted) < 0


def api_key(paths: Paths, release: Release) -> str | None:
    """The key that the engine asks for; it's read where the engine gets it and goes nowhere else."""
    if release.api_key_file is None:
        return None
    for line in (read_text(paths.on_host(release.api_key_file)) or "").splitlines():
        name, _, value = line.strip().partition("=")
        if name == "VLLM_API_KEY" and value:
            return value
    return None


def total(samples: Iterable[Sample], *names: str) -> float | None:
    """The sum over engines and over these names, or None when the engine counts none of them."""
    values = [value for name, _, value in samples if name in names]
    return sum(values) if values else None


def in_flight(samples: Iterable[Sample]) -> float | None:
    """Requests that run or wait, or None when the engine does not count them."""
    return total(samples, "vllm:num_requests_running", "vllm:num_requests_waiting")


def counters(samples: Iterable[Sample]) -> Counters | None:
    """The speculation counters, or None when speculation is off."""
    totals: dict[str, float] = {}
    positions: dict[int, float] = {}
    for name, labels, value in samples:
        if not name.startswith(_SPECULATION):
            continue
        key = name[len(_SPECULATION) :].removesuffix("_total")
        totals[key] = totals.get(key, 0.0) + value
        position = labels.get("position", "")
        if key == "accepted_tokens_per_pos" and position.isascii() and position.isdigit():
            positions[int(position[:6])] = positions.get(int(position[:6]), 0.0) + value
    if "drafts" not in totals or "draft_tokens" not in totals or "accepted_tokens" not in totals:
        return None
    return Counters(totals["drafts"], totals["draft_tokens"], totals["accepted_tokens"], positions)


def problem_of(answer: Answer) -> str | None:
    """Why an answer is not a success, in a few words."""
    if answer.status is None:
        return answer.error or "no answer"
    if answer.status == 200:
        return None
    body = " ".join(answer.body.decode(errors="replace").split())
    return f"HTTP {answer.status}: {body[:200] or 'empty'}"


_MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


def _field(answer: Answer, key: str) -> object:
    """One field of a JSON answer, or None where there is none."""
    try:
        return json.loads(answer.body)[key] if answer.status == 200 else None
    except _MALFORMED:
        return None


def _thoughts(message: dict[str, Any]) -> str:
    # Older versions call the field `reasoning_content`.
    return message.get("reasoning") or message.get("reasoning_content") or ""


def _judged(chat: Chat, end: object) -> Chat:
    """The answer with what is wrong with it."""
    if end not in GOOD_ENDS:
        return replace(chat, problem=f"it ended with {end!r}, expected one of {', '.join(GOOD_ENDS)}")
    if chat.completion_tokens <= 0 or not (chat.text.strip() or chat.reasoning.strip() or chat.calls):
        said = f"{chat.completion_tokens} tokens and no text, expected at least 1 token"
        return replace(chat, problem=said, empty=True)
    return chat


def read_chat(answer: Answer, seconds: float) -> Chat:
    problem = problem_of(answer)
    if problem:
        return Chat(problem, seconds=seconds)
    try:
        document = json.loads(answer.body)
        choice = document["choices"][0]
        message, usage = choice["message"], document["usage"]
        chat = Chat(
            text=str(message.get("content") or ""),
            reasoning=str(_thoughts(message)),
            calls=tuple(dict(call) for call in message.get("tool_calls") or ()),
            prompt_tokens=int(usage["prompt_tokens"]),
            completion_tokens=int(usage["completion_tokens"]),
            seconds=seconds,
        )
        return _judged(chat, choice.get("finish_reason"))
    except _MALFORMED:
        return Chat(f"HTTP 200, but no chat completion: {answer.body[:120]!r}", seconds=seconds)


def read_stream(answer: Answer, seconds: float) -> Chat:
    """The answer of one streamed chat completion: its deltas, its usage, and the end that a client waits for."""
    problem = problem_of(answer)
    if problem:
        return Chat(problem, seconds=seconds)
    text = thoughts = ""
    usage: dict[str, Any] = {}
    end, done, deltas, position = None, False, 0, 0
    first: float | None = None
    try:
        for line in answer.body.split(b"\n"):
            position += len(line) + 1
            name, _, data = line.strip().partition(b":")
            if name != b"data" or done:
                continue
            if data.strip() == b"[DONE]":
                done = True
                continue
            event = json.loads(data.decode(errors="replace"))
            usage = event.get("usage") or usage
            for choice in event.get("choices") or ():
                delta = choice.get("delta") or {}
                said, thought = delta.get("content") or "", _thoughts(delta)
                if said or thought:
                    deltas += 1
                    text, thoughts = text + said, thoughts + thought
                    first = first if first is not None else _arrived(answer, position - 1)
                end = choice.get("finish_reason") or end
        tokens = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
    except _MALFORMED:
        return Chat(f"HTTP 200, but no event stream: {answer.body[:120]!r}", seconds=seconds)
    chat = Chat(None, text, thoughts, (), *tokens, seconds=seconds, deltas=deltas, first_s=first)
    if not done:
        return replace(chat, problem=f"the stream ended after {deltas} deltas without [DONE]")
    if not usage:
        return replace(chat, problem="the stream returned no usage, which was requested")
    return _judged(chat, end)


def _arrived(answer: Answer, position: int) -> float | None:
    return next((seconds for size, seconds in answer.arrivals if size >= position), None)


class Engine:
    """The engine of one release on this host."""

    def __init__(self, system: System, release: Release, key: str | None) -> None:
        self._system = system
        self._port = release.serve.port
        self._model = release.serve.served_names[0]
        self._patience = release.timing.request_timeout_s
        self._key = key

    def _headers(self, path: str) -> dict[str, str]:
        """The key goes only where vLLM asks for it: whoever else listens on the port must not be told it.

        vllm/entrypoints/serve/middleware/authenticate.py of 0.32.0 guards /v1, /v2, /inference and /cohere.
        """
        return {"Authorization": f"Bearer {self._key}"} if self._key and path.startswith(GUARDED) else {}

    def _get(self, path: str) -> Answer:
        return self._system.http(Request(self._port, "GET", path, QUICK_S, None, self._headers(path)))

    def _post(self, path: str, document: dict[str, Any], timeout: float | None = None) -> Answer:
        headers = {**self._headers(path), "Content-Type": "application/json"}
        body = json.dumps(document).encode()
        return self._system.http(Request(self._port, "POST", path, timeout or self._patience, body, headers))

    def health(self) -> Answer:
        return self._get("/health")

    def version(self) -> str | None:
        """What `/version` says, or None."""
        version = _field(self._get("/version"), "version")
        return version if isinstance(version, str) else None

    def models(self) -> tuple[list[dict[str, Any]], str | None]:
        """The cards of `/v1/models`, or why there are none."""
        answer = self._get("/v1/models")
        problem = problem_of(answer)
        if problem:
            return [], problem
        cards = _field(answer, "data")
        if not isinstance(cards, list):
            return [], f"HTTP 200, but no list of models: {answer.body[:120]!r}"
        return [card for card in cards if isinstance(card, dict)], None

    def metrics(self) -> list[Sample]:
        answer = self._get("/metrics")
        return parse.metrics(answer.body.decode(errors="replace")) if answer.status == 200 else []

    def count_tokens(self, text: str) -> int | None:
        """How many tokens the engine's tokenizer makes of a text, or None."""
        count = _field(self._post("/tokenize", {"model": self._model, "prompt": text}), "count")
        return count if isinstance(count, int) and count > 0 else None

    def chat(self, content: str | list[dict[str, Any]], max_tokens: int, **more: object) -> Chat:
        """One chat at temperature 0; `more` goes into the request as it is, and what is None there is left out."""
        started = self._system.monotonic()
        asked = {"model": self._model, "messages": [{"role": "user", "content": content}], "max_tokens": max_tokens}
        request = {key: value for key, value in {**asked, "temperature": 0, **more}.items() if value is not None}
        answer = self._post("/v1/chat/completions", request)
        seconds = self._system.monotonic() - started
        read = read_stream if more.get("stream") else read_chat
        chat = read(answer, seconds)
        return replace(chat, late=answer.status is None and not answer.refused and seconds >= self._patience)

    def answers(self, timeout: float) -> bool | None:
        """Does one token come within the timeout? None where the answer is neither a token nor silence."""
        asked = {"model": self._model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
        answer = self._post("/v1/chat/completions", asked, timeout)
        return True if answer.status == 200 else None if answer.status is not None or answer.refused else False
