"""The simulated engine as a process: its answers, its figures and its ends."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.config import FIXTURES
from tests.unit.lab.conftest import Served, Start

SPEC = "vllm:spec_decode_num_"


def test_refuses_connections_until_loaded(start: Start) -> None:
    served = start(knobs={"load_s": 1.0}, ready=False)
    deadline = time.monotonic() + 10
    refused = 0
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", served.port)) == 0:
                break
            refused += 1
        time.sleep(0.02)
    assert refused > 10
    assert served.get("/health") == (200, "")


def test_says_who_it_is_in_the_recorded_shapes(start: Start) -> None:
    served = start()
    assert json.loads(served.get("/version")[1]) == {"version": "0.22.1", "simulated": True}
    cards = json.loads(served.get("/v1/models")[1])["data"]
    recorded = json.loads((FIXTURES / "engine" / "models.http").read_text().split("\n\n", 1)[1])["data"]
    assert [card["id"] for card in cards] == ["gemma4-aeon-uncensored", "gemma4-fast", "gemma4-deep"]
    assert all(set(card) == set(recorded[0]) for card in cards)
    assert {card["owned_by"] for card in cards} == {"sparkfleet-lab-simulation"}
    assert {card["max_model_len"] for card in cards} == {262144}


def test_a_chat_answers_under_the_first_name_and_counts(start: Start) -> None:
    served = start()
    before = served.counters()
    status, answer = served.chat("Write a binary search in Python.", 256)
    after = served.counters()
    assert status == 200
    assert answer["model"] == "gemma4-aeon-uncensored"
    choice = answer["choices"][0]
    assert (choice["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 256)
    assert choice["message"]["content"].startswith("def binary_search")
    assert choice["message"]["reasoning"] is None
    accepted, drafted, drafts = (
        after[f"{SPEC}{name}_total{{}}"] - before[f"{SPEC}{name}_total{{}}"]
        for name in ("accepted_tokens", "draft_tokens", "drafts")
    )
    assert accepted / drafted == pytest.approx(0.60, abs=0.01)
    assert 1 + accepted / drafts == pytest.approx(7.0, abs=0.1)
    assert after["vllm:generation_tokens_total{}"] == 256
    assert after["vllm:iteration_tokens_total_count{}"] > before["vllm:iteration_tokens_total_count{}"]
    assert after["vllm:num_requests_running{}"] == 0


def test_a_stream_ends_with_its_usage(start: Start) -> None:
    served = start()
    body = {
        "model": "gemma4-deep",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 20,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    _, text = served.ask("/v1/chat/completions", body)
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == 20


@pytest.mark.parametrize(
    ("recorded", "body"),
    [
        ("chat-404.http", {"model": "nope", "messages": [{"role": "user", "content": "x"}]}),
        ("chat-400-badjson.http", b"{bad"),
    ],
)
def test_errors_have_the_recorded_shape(recorded: str, body: object, start: Start) -> None:
    served = start(tag="2026-07-27-v0.26.0")
    head, _, document = (FIXTURES / "engine" / recorded).read_text().partition("\n\n")
    status, text = served.ask("/v1/chat/completions", body)
    assert str(status) == head.split(" ")[1]
    assert json.loads(text) == json.loads(document)


def test_the_key_guards_the_models_and_not_the_health(start: Start) -> None:
    served = start(environment={"VLLM_API_KEY": "a-secret"})
    assert served.get("/v1/models") == (401, '{"error":"Unauthorized"}')
    assert served.get("/v1/models", {"Authorization": "Bearer a-secret"})[0] == 200
    assert [served.get(path)[0] for path in ("/health", "/metrics", "/version", "/ping")] == [200] * 4


def test_the_exposition_has_the_recorded_names(start: Start) -> None:
    served = start()
    recorded = (FIXTURES / "engine" / "metrics-0.22.1-offline.txt").read_text()
    assert _names(served.get("/metrics")[1]) == _names(recorded)


def test_without_a_drafter_there_are_no_speculation_metrics(start: Start, target: Path) -> None:
    served = start(arguments=[str(target), "--served-model-name", "gemma4-fast", "--host", "127.0.0.1"])
    assert served.chat("hello")[0] == 200
    assert not [name for name in _names(served.get("/metrics")[1]) if "spec_decode" in name]


def _names(exposition: str) -> set[str]:
    return set(re.findall(r"^([a-z_:]+)(?:\{| )", exposition, re.MULTILINE))


def test_a_poisoned_drafter_is_healthy_until_the_first_request(start: Start) -> None:
    served = start(backend="flex_attention")
    assert served.get("/health")[0] == 200
    assert served.chat("hello")[0] == 500
    assert served.get("/health")[0] == 503
    assert served.process.wait(10) == 0


def test_the_wrong_back_end_for_the_tag_ends_with_status_1(start: Start) -> None:
    served = start(tag="2026-06-04-pr44389", backend="flash_attn", ready=False)
    assert served.process.wait(10) == 1
    assert "partial multimodal token full attention not supported" in served.process.communicate()[0]


def test_the_unfixed_tag_loses_its_acceptance_over_traffic(start: Start) -> None:
    served = start(tag="2026-06-04-pr44389", backend="flex_attention", knobs={"acceptance_decay": 0.15})
    rates = []
    for _ in range(4):
        before = served.counters()
        served.chat("hello", 200)
        after = served.counters()
        accepted, drafted = (
            after[f"{SPEC}{name}_total{{}}"] - before[f"{SPEC}{name}_total{{}}"]
            for name in ("accepted_tokens", "draft_tokens")
        )
        rates.append(accepted / drafted)
    assert rates == pytest.approx([0.45, 0.30, 0.15, 0.0], abs=0.02)


@pytest.mark.parametrize(
    ("knobs", "environment", "arguments", "status", "message"),
    [
        ({"exit_0_loop": True}, {}, [], 0, "SIMULATED ENGINE"),
        ({"load_error": "RuntimeError: told so"}, {}, [], 1, "RuntimeError: told so"),
        ({}, {"VLLM_NO_SUCH": "1"}, ["--fail-on-environ-validation"], 1, "detected: VLLM_NO_SUCH"),
        ({}, {}, ["--no-such-flag"], 2, "unrecognized arguments: --no-such-flag"),
    ],
)
def test_ends_before_it_serves(
    knobs: dict[str, object],
    environment: dict[str, str],
    arguments: list[str],
    status: int,
    message: str,
    start: Start,
) -> None:
    served = start(*arguments, knobs=knobs, environment=environment, ready=False)
    assert served.process.wait(10) == status
    assert message in served.process.communicate()[0]


def test_a_hung_engine_still_says_that_it_is_healthy(start: Start) -> None:
    served = start(knobs={"hang_with_health_200": True})
    with pytest.raises(TimeoutError):
        served.ask(
            "/v1/chat/completions",
            {"model": "gemma4-fast", "messages": [{"role": "user", "content": "x"}]},
            timeout_s=0.5,
        )
    assert served.get("/health")[0] == 200
    assert served.counters()["vllm:num_requests_running{}"] == 1


def test_faults_of_the_text(start: Start) -> None:
    empty = start(knobs={"empty_text": True}).chat("hello")[1]
    assert empty["choices"][0]["message"]["content"] == ""
    assert empty["usage"]["completion_tokens"] == 16
    leaked = start(knobs={"leak_control_tokens": True}).chat("hello")[1]
    assert "<|channel>" in leaked["choices"][0]["message"]["content"]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
        },
    }
]


def test_a_tool_is_called_whole_and_in_a_stream(start: Start) -> None:
    served = start()
    answer = served.chat("What is the weather?", 64, tools=TOOLS)[1]
    choice = answer["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Lisbon", "days": 1}
    assert served.chat("x", 8, tools=TOOLS, tool_choice="none")[1]["choices"][0]["finish_reason"] == "length"

    messages = [{"role": "user", "content": "x"}]
    body = {"messages": messages, "tools": TOOLS, "max_tokens": 64, "stream": True}
    lines = [line for line in served.ask("/v1/chat/completions", body)[1].splitlines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    parts = [part for event in events for part in event["choices"][0]["delta"].get("tool_calls", [])]
    assert parts[0]["function"]["name"] == "get_weather"
    assert json.loads("".join(part["function"]["arguments"] for part in parts)) == {"city": "Lisbon", "days": 1}
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_without_its_parser_no_tool_is_called_by_itself(start: Start, target: Path) -> None:
    served = start(arguments=[str(target), "--served-model-name", "gemma4-fast", "--host", "127.0.0.1"])
    status, answer = served.chat("x", 8, tools=TOOLS)
    assert status == 400
    assert "--enable-auto-tool-choice" in answer["error"]["message"]


def test_a_picture_is_taken_and_anything_else_is_not(start: Start) -> None:
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()

    def asked(served: Served, url: str) -> tuple[int, Any]:
        parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
        body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 8}
        status, text = served.ask("/v1/chat/completions", body)
        return status, json.loads(text)

    served = start()
    status, answer = asked(served, f"data:image/png;base64,{png}")
    assert status == 200
    assert answer["usage"]["prompt_tokens"] > 256
    assert asked(served, "data:image/png;base64,bm8=")[0] == 400
    status, answer = asked(start(knobs={"refuse_images": True}), f"data:image/png;base64,{png}")
    assert (status, answer["error"]["message"]) == (400, "At most 0 image(s) may be provided in one prompt.")


def test_faults_of_tools_thinking_and_streams(start: Start) -> None:
    served = start(knobs={"broken_tool_json": True, "leak_thinking": True})
    call = served.chat("x", 64, tools=TOOLS)[1]["choices"][0]["message"]["tool_calls"][0]
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(call["function"]["arguments"])
    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    assert served.chat("x", 64, **thinking)[1]["choices"][0]["message"]["reasoning"] is None
    assert start().chat("x", 64, **thinking)[1]["choices"][0]["message"]["reasoning"]

    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 8, "stream": True}
    body["stream_options"] = {"include_usage": True}
    cut = start(knobs={"stream_without_usage": True, "stream_without_done": True})
    text = cut.ask("/v1/chat/completions", body)[1]
    assert "data: " in text
    assert "[DONE]" not in text
    assert "usage" not in text


def test_a_slow_engine_takes_so_many_times_as_long(start: Start) -> None:
    def seconds(knobs: dict[str, float]) -> float:
        served = start(knobs={"tokens_per_second": 200.0, **knobs})
        began = time.monotonic()
        assert served.chat("x", 100)[0] == 200
        return time.monotonic() - began

    assert seconds({"slowdown": 3.0}) > 2 * seconds({})


@pytest.mark.parametrize(("timeout_s", "reason"), [(0, "abort"), (20, "length")])
def test_what_a_stop_does_to_a_request_under_way(timeout_s: int, reason: str, start: Start) -> None:
    served = start("--shutdown-timeout", str(timeout_s), knobs={"tokens_per_second": 100.0})
    answers: list[tuple[int, dict[str, object]]] = []
    request = threading.Thread(target=lambda: answers.append(served.chat("hello", 100)))
    request.start()
    _wait_running(served)
    served.process.send_signal(signal.SIGTERM)
    if timeout_s:
        _wait_draining(served)
        assert served.get("/health")[0] == 200
    request.join(10)
    status, answer = answers[0]
    assert (status, answer["choices"][0]["finish_reason"]) == (200, reason)  # type: ignore[index]
    assert served.process.wait(10) == 0


def _wait_running(served: Served) -> None:
    deadline = time.monotonic() + 5
    while served.counters()["vllm:num_requests_running{}"] == 0:
        assert time.monotonic() < deadline


def _wait_draining(served: Served) -> None:
    deadline = time.monotonic() + 5
    while True:
        status, answer = served.chat("hello", 1)
        if status == 500:
            assert answer["error"]["message"] == "cannot schedule new futures after shutdown"
            return
        assert time.monotonic() < deadline
