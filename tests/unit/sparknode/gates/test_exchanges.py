"""The gates of single exchanges against an engine that can do everything, and one that gets each of them wrong."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknode.activate.worker import DONE, REVERTED
from sparknode.base.http import Answer
from sparknode.engine import client
from sparknode.gates.exchanges import red_png
from sparknode.state import journal
from tests.unit.sparknode.acting import activate
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import Engine, World, answer_document

EVERYTHING: dict[str, Any] = {
    "gates__streaming": True,
    "gates__tool_call": True,
    "gates__reasoning": True,
    "gates__image": True,
    "gates__gpu": True,
    "gates__burst": {"requests": 6, "max_tokens": 32, "min_acceptance_rate": 0.05},
    "gates__throughput": {"min_tokens_per_second": 60, "max_ttft_s": 2},
    "gates__very_long": {
        "prompt_tokens": 9000,
        "max_tokens": 64,
        "min_acceptance_rate": 0.2,
        "min_mean_acceptance_length": 2.0,
    },
    "gates__control_tokens": ["<|channel>", "<channel|>", "<|think|>", "<|tool_call>", "<tool_call|>"],
    "gates__after_load": {"min_available_gib": 4, "min_power_w": 30, "min_clock_mhz": 1400},
}
FULL = release("full", **EVERYTHING)


def events(*deltas: dict[str, Any], usage: bool = True, done: bool = True, end: str | None = "length") -> bytes:
    documents: list[dict[str, Any]] = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    documents.append({"choices": [{"delta": {}, "finish_reason": end}]})
    if usage:
        documents.append({"choices": [], "usage": {"prompt_tokens": 17, "completion_tokens": len(deltas)}})
    lines = [f"data: {json.dumps(document)}\n\n" for document in documents]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def streamed(body: bytes, first_s: float = 0.1) -> Answer:
    return Answer(200, body, arrivals=((len(body) - 1, first_s), (len(body), first_s + 1.0)))


class Capable:
    """An engine's chats; each kind of request may be given another answer."""

    def __init__(self, world: World, **wrong: Any) -> None:
        self.world, self.wrong = world, wrong
        self.asked: list[dict[str, Any]] = []

    def __call__(self, asked: dict[str, Any]) -> Answer:
        self.asked.append(asked)
        self.world.clock += 0.5
        for name, figure in {"drafts": 10, "draft_tokens": 100, "accepted_tokens": 60}.items():
            self.world.counters[name] += figure
        kind = self.kind_of(asked)
        message, stream = {"content": "def f(): pass"}, streamed(events({"content": "wo"}, {"content": "rd"}))
        if kind == "reasoning":
            message = {"content": "9", "reasoning": "All but nine ran away."}
        if kind == "tools":
            call = {"function": {"name": "get_weather", "arguments": '{"city": "Lisbon"}'}}
            message = {"content": None, "tool_calls": [call]}  # type: ignore[dict-item]
        answer = self.wrong.get(kind)
        if isinstance(answer, Answer):
            return answer
        if kind == "stream":
            return stream
        document = answer_document()
        document["choices"][0]["message"] = answer(asked, message) if callable(answer) else answer or message
        return Answer(200, json.dumps(document).encode())

    @staticmethod
    def kind_of(asked: dict[str, Any]) -> str:
        if asked.get("stream"):
            return "stream"
        if "tools" in asked:
            return "tools"
        if "chat_template_kwargs" in asked:
            return "reasoning"
        if isinstance(asked["messages"][0]["content"], list):
            return "image"
        return "chat" if "temperature" in asked else "sampled"


def on(world: World, **wrong: Any) -> Capable:
    found = Capable(world, **wrong)
    world.stage(FULL, Engine(chat=found))
    return found


def test_an_engine_that_can_do_everything_passes_every_gate(serving: World) -> None:
    chats = on(serving)

    run = activate(serving, FULL)

    assert run.code == DONE, run.last
    figures = journal.attempts(run.records)[0].forth.figures
    assert figures["streaming"] == {"figure": 2.0, "threshold": 1.0, "unit": "deltas", "verdict": "pass"}
    assert figures["ttft"] == {"figure": 0.1, "threshold": 2.0, "unit": "s", "verdict": "pass"}
    assert figures["tokens-per-second-short"]["threshold"] == 60.0
    assert figures["control-tokens"] == {"figure": 0.0, "threshold": 0.0, "unit": "tokens", "verdict": "pass"}
    assert figures["power"]["figure"] == 40.0
    assert figures["memory-available"]["figure"] == pytest.approx(4.77)
    assert {"reasoning", "tool-call", "image", "gpu", "acceptance-very-long"} <= set(figures)
    picture = next(asked for asked in chats.asked if chats.kind_of(asked) == "image")
    assert picture["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert next(asked for asked in chats.asked if chats.kind_of(asked) == "tools")["tool_choice"] == "auto"


def call(name: str = "get_weather", arguments: object = '{"city": "Lisbon"}') -> dict[str, Any]:
    return {"content": None, "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no end of the stream": (
        {"stream": streamed(events({"content": "a"}, done=False))},
        "streaming: the stream ended after 1 deltas without [DONE]",
    ),
    "no usage": (
        {"stream": streamed(events({"content": "a"}, usage=False))},
        "streaming: the stream returned no usage",
    ),
    "no text in the stream": (
        {"stream": streamed(events({"role": "assistant"}))},
        "streaming: 1 tokens and no text, expected at least 1 token",
    ),
    "aborted stream": ({"stream": streamed(events({"content": "a"}, end="abort"))}, "streaming: it ended with 'abort'"),
    "not a stream": (
        {"stream": Answer(200, b'data: {"choices": 3}\n\n')},
        "streaming: HTTP 200, but no event stream: b'data: ",
    ),
    "late first token": (
        {"stream": streamed(events({"content": "a"}), first_s=2.5)},
        "ttft: the first token came after 2.50 s, expected at most 2 s",
    ),
    "thinking in the text": (
        {"reasoning": {"content": "Let me think. 9"}},
        "reasoning: no `reasoning` in the answer, whose text begins 'Let me think. 9'",
    ),
    "no call": (
        {"tools": {"content": "call:get_weather{}"}},
        "tool-call: no tool_calls in the answer, whose text begins 'call:get_weather{}'",
    ),
    "another tool": ({"tools": call("other")}, 'tool-call: the call is {"function": {"name": "other"'),
    "arguments that are no JSON": (
        {"tools": call(arguments="{city:")},
        "tool-call: the arguments '{city:' are not JSON",
    ),
    "arguments that are no object": ({"tools": call(arguments="[1]")}, "tool-call: the arguments are [1], expected an"),
    "no image": ({"image": Answer(400, b"At most 0 image(s) may be provided")}, "image: HTTP 400: At most 0 image(s)"),
    "control tokens in the code": (
        {"chat": lambda asked, message: {"content": "<channel|>"} if "Python" in str(asked) else message},
        "control-tokens: prompts-short gave '<channel|>'",
    ),
    "control tokens in the thinking": (
        {"reasoning": {"content": "9", "reasoning": "hm <|think|>"}},
        "control-tokens: reasoning gave '<|think|>'",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_each_fault_is_named_with_what_was_found(serving: World, fault: str) -> None:
    wrong, reason = WRONG[fault]
    on(serving, **wrong)

    run = activate(serving, FULL)

    assert run.code == REVERTED
    assert reason in run.last["error"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"power_w": 12.0, "clock_mhz": 650.0},
            "power: 12 W at 650 MHz and 96 % for 20 s, expected at least 30 W; the power supply is wedged",
        ),
        ({"gpu_said": "Failed to initialize NVML: Unknown Error"}, "gpu: the container does not see the GPU: Failed"),
    ],
    ids=["power", "gpu"],
)
def test_what_the_host_may_be_guilty_of_is_not_remembered_of_the_release(
    serving: World, change: dict[str, Any], reason: str
) -> None:
    on(serving)
    for name, value in change.items():
        setattr(serving, name, value)

    assert reason in activate(serving, FULL).last["error"]
    assert journal.known_bad(journal.read(serving.paths)) == {}


@pytest.mark.parametrize("change", [{"clock_mhz": 2400.0}, {"clock_mhz": 650.0, "busy_percent": 3.0}])
def test_little_power_alone_is_no_wedge(serving: World, change: dict[str, float]) -> None:
    on(serving)
    serving.power_w = 12.0
    for name, value in change.items():
        setattr(serving, name, value)

    run = activate(serving, FULL)

    assert run.code == DONE
    assert "a wedged supply looks different" in "\n".join(run.lines)


def test_an_image_without_nvidia_smi_is_no_reason_to_go_back(serving: World) -> None:
    on(serving)
    serving.gpu_said = 'OCI runtime exec failed: exec: "nvidia-smi": executable file not found in $PATH'

    assert activate(serving, FULL).code == DONE


def test_half_the_speed_is_a_failure_with_its_figure(serving: World) -> None:
    def slowly(_: object, message: object) -> object:
        serving.clock += 1.0
        return message

    on(serving, chat=slowly)

    run = activate(serving, FULL)

    assert run.code == REVERTED
    assert "tokens-per-second-short: 42.7 tok/s, 192 tokens in 4.5 s" in run.last["error"]
    assert "expected at least 60 tok/s" in run.last["error"]


def test_a_call_that_has_to_be_forced_counts(serving: World) -> None:
    on(serving, tools=lambda asked, message: message if asked["tool_choice"] != "auto" else {"content": "Sunny."})

    run = activate(serving, FULL)

    assert run.code == DONE
    assert "get_weather called (asked for by name, as none came by itself)" in "\n".join(run.lines)


def test_the_older_name_of_the_thinking_counts(serving: World) -> None:
    on(serving, reasoning={"content": "9", "reasoning_content": "All but nine."})

    assert activate(serving, FULL).code == DONE


def test_text_that_is_empty_once_is_chance(serving: World) -> None:
    answers = iter(["", "blue"])
    on(serving, chat=lambda *_: {"content": next(answers, "def f(): pass")})

    assert activate(serving, FULL).code == DONE


def test_what_a_release_does_not_ask_for_is_not_asked(serving: World) -> None:
    activate(serving)

    bodies = [json.loads(request.body or b"{}") for request in serving.requests]
    assert not [body for body in bodies if {"stream", "tools", "chat_template_kwargs"} & set(body)]


def test_the_first_token_is_timed_by_when_its_line_had_come() -> None:
    body = events({"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"})
    line = body.index(b'"a"')
    found = client.read_stream(Answer(200, body, arrivals=((line, 0.2), (line + 60, 0.7), (len(body), 1.5))), 1.5)

    assert (found.problem, found.text, found.deltas, found.first_s) == (None, "ab", 2, 0.7)


@given(
    st.binary(max_size=200) | st.lists(st.binary(max_size=30)).map(lambda rows: b"\n".join(b"data:" + r for r in rows))
)
def test_no_body_makes_reading_a_stream_raise(body: bytes) -> None:
    assert client.read_stream(Answer(200, body), 1.0).problem


def test_the_picture_is_a_png_of_its_size() -> None:
    data = red_png(8)

    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (8, 8)
    length = struct.unpack(">I", data[33:37])[0]
    assert zlib.decompress(data[41 : 41 + length]) == (b"\0" + b"\xd0\x10\x10" * 8) * 8
    assert len(base64.b64encode(red_png())) < 1000
