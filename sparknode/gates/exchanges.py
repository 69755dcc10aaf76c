"""The gates of one exchange each with the engine: a chat, a stream, sampling, thinking, a tool call, an image."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sparknode.engine.client import Chat
from sparknode.gates import prompts
from sparknode.gates.subject import Subject
from sparknode.state.gate_result import FAIL, NO_DATA, PASS, GateResult

# What no chat's text should hold, whatever the model's own control tokens are called.
_CONTROL_TOKEN = re.compile(
    r"<\|[a-z_/]{2,40}\|?>|<[a-z_]{2,40}\|>|</?(?:start|end)_of_turn>|<(?:eos|bos|pad|unk|mask)>|<unused\d+>"
)
TOOL = "get_weather"
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": TOOL,
            "description": "Get the weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
_IMAGE_SIDE = 64


def _result(name: str, chat: Chat, problem: str | None, figure: float, unit: str, detail: str) -> GateResult:
    problem = chat.problem or problem
    verdict = FAIL if problem else PASS
    return GateResult(name, figure, 1.0, unit, verdict, problem or f"{detail} in {chat.seconds:.1f} s")


def short_chat(subject: Subject) -> Iterator[GateResult]:
    """One chat comes back as text, and no control token leaks into it."""
    tokens = subject.release.gates.short.max_tokens
    chat = subject.ask("short-chat", prompts.CHAT, tokens)
    leaked = _CONTROL_TOKEN.search(chat.text + chat.reasoning)
    problem = (
        f"the text holds the control token {leaked[0]!r}; is the chat template the model's own?" if leaked else None
    )
    count = chat.completion_tokens
    result = _result("short-chat", chat, problem, float(count), "tokens", f"{count} tokens")
    yield replace(result, proof=leaked is not None)


def sampling(subject: Subject) -> Iterator[GateResult]:
    """The model's own sampling works, and its kernels are compiled before a client waits for them.

    Measured on vLLM 0.26.0: the first such request took 7 s, the next 0.1 s. What was sampled is not judged.
    """
    chat = subject.engine.chat(prompts.CHAT, subject.release.gates.short.max_tokens, temperature=None)
    problem = None if chat.empty else chat.problem
    said = problem or f"the model's own sampling answered in {chat.seconds:.1f} s"
    yield GateResult("sampling", round(chat.seconds, 2), None, "s", FAIL if problem else PASS, said)


def streaming(subject: Subject) -> Iterator[GateResult]:
    """The same chat as a stream of events, and how long its first token took."""
    asked = subject.release.gates
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chat = subject.ask("streaming", prompts.CHAT, asked.short.max_tokens, **options)
    yield _result("streaming", chat, None, float(chat.deltas), "deltas", f"{chat.deltas} deltas, usage and [DONE]")
    if chat.first_s is None:
        said = "the time of the first token is unknown"
        yield GateResult("ttft", None, asked.floors.max_ttft_s, "s", NO_DATA, said)
        return
    said, limit = f"the first token came after {chat.first_s:.2f} s", asked.floors.max_ttft_s
    late = limit is not None and chat.first_s > limit
    said += f", expected at most {limit:g} s" if limit is not None else ""
    yield GateResult("ttft", round(chat.first_s, 3), limit, "s", FAIL if late else PASS, said)


def reasoning(subject: Subject) -> Iterator[GateResult]:
    """Thinking comes back in a field of its own, not within the text."""
    thinking = {"enable_thinking": True}
    chat = subject.ask(
        "reasoning", prompts.REASONING, subject.release.gates.short.max_tokens, chat_template_kwargs=thinking
    )
    count, problem = len(chat.reasoning.strip()), None
    if not count:
        problem = f"no `reasoning` in the answer, whose text begins {chat.text[:60]!r}; is the reasoning parser set?"
    yield _result("reasoning", chat, problem, float(count), "characters", f"{count} characters of thinking")


def tool_call(subject: Subject) -> Iterator[GateResult]:
    """A call comes back as `tool_calls` with arguments that are JSON, chosen by the model.

    Where the parser can force one, it is then asked for by name. Gemma 4's of vLLM 0.26.0 to 0.32.0 cannot
    (`supports_required_and_named = False`): the request would reach the model as it is, and get the same answer again.
    """
    tokens, forced = subject.release.gates.short.max_tokens, not subject.release.gates.tool_call_unforced
    ways: list[tuple[str, str, object]] = [("chosen by the model", prompts.TOOL, "auto")]
    if forced:
        named = {"type": "function", "function": {"name": TOOL}}
        ways.append(("asked for by name, as none came by itself", prompts.TOOL, named))
    else:
        ways.append(("chosen by the model when told to", prompts.TOOL_AGAIN, "auto"))
    how, question, choice = ways[0]
    chat = subject.ask("tool-call", question, tokens, tools=_TOOLS, tool_choice=choice)
    if not chat.problem and not chat.calls:
        how, question, choice = ways[1]
        chat = subject.ask("tool-call", question, tokens, tools=_TOOLS, tool_choice=choice)
    problem = _call_problem(chat)
    if not chat.calls and not chat.problem:
        problem = f"{problem}; " + (_NOT_OBEYED if forced else _NOT_FORCED)
    yield _result("tool-call", chat, problem, float(len(chat.calls)), "calls", f"{TOOL} called ({how})")


_NOT_OBEYED = (
    "it was asked for by name too: either no tool parser is set, or the engine's parser passes `tool_choice` on to the "
    "model, which then is free to answer in text"
)
_NOT_FORCED = (
    "this engine's tool parser cannot force a call, so the gate only asked twice; look at whether the model calls "
    "tools with this chat template before you suspect the parser"
)


def _call_problem(chat: Chat) -> str | None:
    if not chat.calls:
        return f"no tool_calls in the answer, whose text begins {chat.text[:60]!r}"
    called: dict[str, Any] = chat.calls[0].get("function") or {}
    if not isinstance(called, dict) or called.get("name") != TOOL:
        return f"the call is {json.dumps(chat.calls[0])[:120]}, expected one of {TOOL}"
    try:
        given = json.loads(called.get("arguments") or "")
    except (ValueError, TypeError, RecursionError):
        return f"the arguments {str(called.get('arguments'))[:80]!r} are not JSON"
    if not isinstance(given, dict) or not isinstance(given.get("city"), str):
        return f"the arguments are {json.dumps(given)[:80]}, expected an object with a `city`"
    return None


def image(subject: Subject) -> Iterator[GateResult]:
    """A picture is taken and spoken of."""
    picture = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(red_png()).decode()}"},
    }
    content: list[dict[str, Any]] = [{"type": "text", "text": prompts.IMAGE}, picture]
    chat = subject.ask("image", content, subject.release.gates.short.max_tokens)
    count = chat.completion_tokens
    yield _result("image", chat, None, float(count), "tokens", f"{count} tokens ({chat.text.strip()[:40]!r})")


def red_png(side: int = _IMAGE_SIDE) -> bytes:
    """A red square as PNG: 8 bits a channel, RGB, each row without a filter."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xd0\x10\x10" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def control_tokens(subject: Subject) -> Iterator[GateResult]:
    """None of the model's own control tokens in anything that was said, thinking included."""
    listed = subject.release.gates.control_tokens
    found = [
        f"{gate} gave {token!r}"
        for gate, chat in subject.said
        for token in listed
        if token in chat.text or token in chat.reasoning
    ]
    detail = "; ".join(found[:3]) or f"none of {len(listed)} in {len(subject.said)} answers"
    if found:
        detail += "; does generation_config.json end at them (eos_token_id)?"
    verdict = FAIL if found else PASS
    yield GateResult("control-tokens", float(len(found)), 0.0, "tokens", verdict, detail, proof=True)
