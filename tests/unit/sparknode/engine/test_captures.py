"""What the node makes of a recorded vLLM 0.26.0 on a GPU: its answers, its counters, and a port that closes first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparknode.base import parse
from sparknode.base.http import Answer
from sparknode.base.shape import Node
from sparknode.engine import client
from sparknode.engine.client import problem_of
from sparknode.gates.table import judge, served_differences
from sparknode.state import journal
from sparknode.state.release import Floors
from sparknode.state.releases import from_node
from tests.unit.sparknode.acting import activate
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import World

GPU = Path(__file__).parents[3] / "fixtures/gpu"
FLOORS = Floors(max_tokens=256, prompt_tokens=None, min_acceptance_rate=0.3, min_mean_acceptance_length=3.5)


def recorded(name: str) -> Answer:
    head, _, body = (GPU / "http" / f"{name}.http").read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")
    return Answer(int(head.split()[1]), body)


def counted(name: str) -> client.Counters | None:
    return client.counters(parse.metrics((GPU / "metrics" / f"{name}.txt").read_text()))


# Chats: whether they count, how many tokens, and whether a tool was called.
CHATS: dict[str, tuple[str | None, int, bool]] = {
    "chat": (None, 64, False),
    "image": (None, 32, False),
    "tool-auto": (None, 64, False),
    "tool-named": (None, 64, False),
    "image-broken": ("HTTP 400: ", 0, False),
    "too-long": ("HTTP 400: ", 0, False),
}


@pytest.mark.parametrize("name", CHATS)
def test_each_recorded_chat_is_read(name: str) -> None:
    problem, tokens, called = CHATS[name]

    found = client.read_chat(recorded(name), 1.0)

    assert (found.problem or "").startswith(problem or "")
    assert (found.problem is None) == (problem is None)
    assert (found.completion_tokens, bool(found.calls)) == (tokens, called)


@pytest.mark.parametrize("name", ["chat-stream", "chat-stream-t1"])
def test_each_recorded_stream_has_text_usage_and_an_end(name: str) -> None:
    found = client.read_stream(recorded(name), 1.0)

    assert found.problem is None
    # A drafter makes several tokens a step, and a step is one event.
    assert 0 < found.deltas < found.completion_tokens


def test_a_call_that_was_asked_for_by_name_is_the_same_text_again() -> None:
    auto, named = (client.read_chat(recorded(f"tool-{kind}"), 1.0) for kind in ("auto", "named"))

    assert (auto.text, auto.calls) == (named.text, ())


def test_the_recorded_identity_is_a_release_s() -> None:
    names = ["gemma4-aeon-uncensored", "gemma4-fast", "gemma4-deep"]
    changes = {"serve__served_names": names, "serve__max_model_len": 184320}
    wanted = from_node(Node(release("tag", **changes), "release"))

    assert served_differences(wanted, json.loads(recorded("models").body)["data"]) == []
    assert json.loads(recorded("version").body) == {"version": "0.26.0"}
    assert problem_of(recorded("version")) is None


def test_every_recorded_exchange_is_read_here() -> None:
    read = {*CHATS, "chat-stream", "chat-stream-t1", "models", "version"}
    assert {path.stem for path in (GPU / "http").iterdir()} == read


def test_the_counters_of_each_recording() -> None:
    fresh, loaded = counted("dflash-fresh"), counted("dflash-load16-during")
    broken = counted("dflash-broken-drafter-after")
    assert fresh is not None
    assert loaded is not None
    assert broken is not None
    assert counted("v1-nodraft-fresh") is None
    assert (fresh.drafts, fresh.draft_tokens, fresh.accepted) == (0.0, 0.0, 0.0)
    assert len(fresh.positions) == 10

    rate, length = judge("short", loaded.since(fresh), FLOORS)
    assert (rate.verdict, length.verdict) == ("pass", "pass")

    rate, length = judge("short", broken, FLOORS, collapse=0.05)
    assert (rate.figure, rate.verdict, rate.collapsed) == (0.0, "fail", True)
    assert (length.figure, length.verdict) == (1.0, "fail")


def stops() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((GPU / "stops").iterdir())}


def test_the_recordings_have_a_closed_port_with_streams_that_run() -> None:
    hidden = [
        name
        for name, document in stops().items()
        if any(row["connect"] == "refused" and row["alive"] and row["streams_left"] for row in document["rows"])
    ]
    assert set(hidden) == {"sigterm-60-streams-longer", "sigterm-60-streams-longer-v1"}


def test_a_drain_waits_for_an_engine_that_closed_its_port_first(
    serving: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.engines[str(serving.running)].never_ready = True
    real, until = serving._shown, serving.clock + 12.0

    def shown() -> str:
        stopping = serving.clock < until
        return real().replace("ActiveState=active", "ActiveState=deactivating") if stopping else real()

    monkeypatch.setattr(serving, "_shown", shown)

    drained = [record for record in activate(serving).records if record["state"] == "draining"]

    began, ended = (journal.seconds_of(record["t"]) or 0.0 for record in (drained[0], drained[-1]))
    assert ended - began >= 12.0
    assert drained[-1]["note"] == "no engine answers, so no request can be lost"
