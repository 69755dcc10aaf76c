"""One completion in vLLM's fields, whole or as a stream of events."""

from __future__ import annotations

import time
import uuid
from typing import Any

from tests.lab.engine.sim import Piece
from tests.lab.engine.tools import Call

# How many tokens of an answer with thinking are thought when it is streamed.
THOUGHT_TOKENS = 16


class Answer:
    """The answer to one request: text, thinking and text, or the call of a tool."""

    def __init__(self, model: str, chat: bool, thinks: bool, prompt_tokens: int, call: Call | None = None) -> None:
        self._chat = chat
        self._thinks = thinks
        self._prompt_tokens = prompt_tokens
        self._call = call
        self._done = 0
        kind = "chat.completion" if chat else "text_completion"
        prefix = "chatcmpl" if chat else "cmpl"
        self._head = {
            "id": f"{prefix}-{uuid.uuid4().hex[:16]}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "total_tokens": self._prompt_tokens + self._done,
            "completion_tokens": self._done,
            "prompt_tokens_details": None,
        }

    def whole(self, pieces: list[Piece]) -> dict[str, Any]:
        self._done = sum(piece.tokens for piece in pieces)
        text = "".join(piece.text for piece in pieces)
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": self._end(pieces[-1])}
        choice |= {"stop_reason": None, "token_ids": None}
        if self._chat:
            thought, said = _split(text) if self._thinks and not self._call else (None, text)
            choice["message"] = {
                "role": "assistant",
                "content": None if self._call else said,
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "reasoning": thought,
            }
            if self._call:
                choice["message"]["tool_calls"] = [self._call.document()]
        else:
            choice["text"] = text
        return {**self._head, "choices": [choice], "usage": self.usage(), "prompt_logprobs": None}

    def opening(self) -> list[dict[str, Any]]:
        if not self._chat:
            return []
        opening: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if self._call:
            opening += [{"tool_calls": [part]} for part in self._call.deltas()]
        return [self._event({"delta": delta}, None) for delta in opening]

    def event(self, piece: Piece) -> dict[str, Any]:
        self._done += piece.tokens
        key = "reasoning" if self._thinks and self._done <= THOUGHT_TOKENS else "content"
        delta = {} if self._call else {key: piece.text}
        body: dict[str, Any] = {"delta": delta} if self._chat else {"text": piece.text}
        return self._event(body, self._end(piece))

    def usage_event(self) -> dict[str, Any]:
        return {**self._event({}, None), "choices": [], "usage": self.usage()}

    def _end(self, last: Piece) -> str | None:
        """A call that was made is the reason why the answer ends, whatever its length."""
        called = self._call is not None and last.finish_reason in ("length", "stop")
        return "tool_calls" if called else last.finish_reason

    def _event(self, body: dict[str, Any], reason: str | None) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        choice = {"index": 0, **body, "logprobs": None, "finish_reason": reason}
        return {**self._head, "object": kind, "choices": [choice]}


def _split(text: str) -> tuple[str, str]:
    middle = len(text) // 3
    return text[:middle], text[middle:]
