"""Bad releases: the node goes back by itself, and says which gate did not hold, with its figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparknode.activate.worker import DONE, FAILED, REVERTED
from sparknode.base.http import Answer
from sparknode.errors import KnownBad
from sparknode.state import journal
from tests.unit.sparknode.acting import NEW, OLD, activate
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import MEMORY_ERROR, Engine, World, answer_document


def chat_gives(**changes: Any) -> Engine:
    return Engine(chat=lambda _: Answer(200, json.dumps(answer_document(**changes)).encode()))


BAD_ENGINES: dict[str, tuple[Engine, str]] = {
    "drafter accepts nothing": (
        Engine(acceptance=0.0),
        "acceptance-short: 0.0 % of drafted tokens accepted, expected at least 30.0 %",
    ),
    "drafter accepts too few in a row": (
        Engine(acceptance=0.19),
        "acceptance-short: 19.0 % of drafted tokens accepted, expected at least 30.0 %",
    ),
    "no speculation": (Engine(drafts=False), "acceptance-short: the engine counts no drafts in /metrics"),
    "aborted": (chat_gives(finish_reason="abort"), "short-chat: it ended with 'abort', expected one of stop, length"),
    "no tokens": (chat_gives(completion_tokens=0), "short-chat: 0 tokens and no text"),
    "empty text": (chat_gives(content=""), "short-chat: 64 tokens and no text, expected at least 1 token"),
    "control token": (chat_gives(content="blue<|im_end|>"), "short-chat: the text holds the control token"),
    "garbage": (Engine(chat=lambda _: Answer(200, b"<html>")), "short-chat: HTTP 200, but no chat completion"),
    "hang": (Engine(chat=lambda _: Answer(None, error="no answer within 120 s")), "short-chat: no answer within 120 s"),
    "error": (Engine(chat=lambda _: Answer(500, b"boom")), "short-chat: HTTP 500: boom"),
    "other version": (Engine(version="0.23.0"), "identity: /version is 0.23.0, the release has 0.22.1"),
    "other name": (Engine(names=["gemma4"]), "identity: /v1/models does not serve 'gemma4-fast'"),
    "other model": (Engine(root="/models/x"), "identity: /v1/models: root of 'gemma4' is '/models/x'"),
    "other arguments": (Engine(changes={"Args": ["serve"]}), "identity: arguments: the container has nothing where"),
    "other image": (Engine(changes={"Image": "sha256:00"}), "identity: image: the container runs sha256:00"),
    "crash on start": (
        Engine(
            dies_after_s=3.0,
            last_words=["loading", "RuntimeError: no kernel image", "RuntimeError: Engine core initialization failed."],
        ),
        "the engine died and systemd started it again: RuntimeError: no kernel image",
    ),
    "unit fails": (Engine(dies_after_s=2.0, restarts=False), "the unit failed (exit-code): INFO loading"),
    "out of memory": (
        Engine(dies_after_s=3.0, last_words=[MEMORY_ERROR]),
        "(it died for want of memory)",
    ),
    "never ready": (Engine(never_ready=True), "ready: /health gave connection refused after 18"),
    "crash on the first chat": (
        Engine(dies_on_chat=True, last_words=["CUDA error: 800"]),
        "short-chat: ConnectionResetError: reset; the engine died",
    ),
    "crash in the soak": (Engine(dies_after_s=25.0), "soaking: the engine died and systemd started it again"),
    "acceptance decays": (Engine(decay_s=20.0), "0.0 % of drafted tokens accepted, expected at least"),
}


@pytest.mark.parametrize("fault", BAD_ENGINES)
def test_a_bad_release_ends_with_the_old_one_serving_and_the_reason_in_words(serving: World, fault: str) -> None:
    engine, reason = BAD_ENGINES[fault]
    serving.engines[NEW["id"]] = engine

    run = activate(serving)

    assert run.code == REVERTED
    assert run.states[-2:] == ["reverting", "reverted"]
    assert reason in run.last["error"]
    assert serving.running == OLD["id"]
    assert serving.paths.linked("current") == serving.paths.linked("verified") == OLD["id"]
    assert serving.paths.unit.read_text() == OLD["unit"]
    assert reason in "\n".join(run.lines)


def test_the_last_log_lines_stand_where_the_way_back_begins(serving: World) -> None:
    serving.engines[NEW["id"]] = Engine(dies_after_s=3.0, last_words=["one", "ValueError: two"])

    run = activate(serving)

    turned = next(record for record in run.records if record["state"] == "reverting")
    assert turned["note"] == "last log lines:\none\nValueError: two"


START = ("systemctl", "start", "--no-block", "sparkfleet-serve.service")


def starts(world: World) -> list[tuple[str, ...]]:
    return [command for command in world.commands if command == START]


def test_a_start_that_died_of_memory_is_tried_once(serving: World) -> None:
    serving.engines[NEW["id"]] = Engine(dies_after_s=3.0, last_words=[MEMORY_ERROR])

    activate(serving)

    assert len(starts(serving)) == 2, "one of the new release and one of the old"


def test_memory_that_does_not_come_back_starts_nothing(serving: World) -> None:
    serving.memory_never_returns = True

    run = activate(serving)

    assert run.code == FAILED
    assert (
        "reclaiming: memory did not come back: 4.8 GiB available, 97.3 GiB needed (0.80 of 121.6 GiB)"
        in run.last["error"]
    )
    assert starts(serving) == [START], "of the old one, whose unit waits for memory itself"
    assert "systemd goes on trying to start it" in run.last["error"]
    assert serving.commands[-1] != ("systemctl", "stop", "sparkfleet-serve.service")
    assert serving.paths.linked("current") == OLD["id"], "a boot starts the old release"
    assert serving.enabled


def test_a_release_without_a_memory_gate_does_not_wait(tmp_path: Path) -> None:
    world = World(tmp_path, memory_never_returns=True)
    document = release("free", memory=None)
    world.stage(document)

    assert activate(world, document).code == DONE


def test_a_first_release_that_fails_leaves_nothing_that_crash_loops(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.stage(NEW, Engine(acceptance=0.0))

    run = activate(world)

    assert run.code == FAILED
    assert "no verified release to roll back to" in run.last["error"]
    assert world.running is None
    assert not world.enabled
    assert world.paths.linked("verified") is None


def test_a_way_back_that_dies_too_is_said_and_stopped(serving: World) -> None:
    serving.engines[NEW["id"]] = Engine(acceptance=0.0)
    serving.engines[OLD["id"]] = Engine(dies_after_s=2.0)

    run = activate(serving)

    assert run.code == FAILED
    assert "acceptance-short: 0.0 %" in run.last["error"]
    assert f"the rollback to {OLD['id']} failed too (nothing serves)" in run.last["error"]
    assert serving.running is None
    assert serving.enabled, "a reboot may still cure it"


def test_a_way_back_whose_engine_was_killed_is_walked_again(serving: World) -> None:
    serving.engines[NEW["id"]] = Engine(acceptance=0.0)
    old = serving.engines[OLD["id"]] = Engine(dies_after_s=2.0, last_words=[KILLED.format(125)])
    # systemd starts the engine again once by itself before this is seen.
    killed, made = 2, serving.containers_made

    def mend() -> None:
        if serving.running == OLD["id"] and serving.containers_made > made + 1 + killed:
            old.dies_after_s = None

    serving.on_sleep = mend
    run = activate(serving)

    assert run.code == REVERTED
    assert [
        record
        for record in run.records
        if str(record.get("note")).startswith("once more, as there is no other release")
    ]
    assert serving.running == OLD["id"]
    assert run.last["error"].startswith("acceptance-short: 0.0 %")


def test_an_old_release_that_answers_but_fails_a_gate_goes_on_serving(serving: World) -> None:
    serving.engines[NEW["id"]] = Engine(acceptance=0.0)
    serving.engines[OLD["id"]] = Engine(acceptance=0.1)

    run = activate(serving)

    assert run.code == FAILED
    assert "the running engine is left running, unverified" in run.last["error"]
    assert serving.running == OLD["id"]


def test_the_way_back_has_no_part_in_the_figures_of_the_new_release(serving: World) -> None:
    serving.engines[NEW["id"]] = Engine(acceptance=0.0)

    run = activate(serving)

    figures = journal.attempts(run.records)[0].forth.figures
    assert figures["acceptance-short"]["figure"] == 0.0
    assert figures["acceptance-short"]["verdict"] == "fail"


def test_the_way_back_proves_the_release_that_serves_again(serving: World) -> None:
    """The table shows what is known of the release that serves, not of the one that failed."""
    serving.engines[NEW["id"]] = Engine(acceptance=0.0)

    run = activate(serving)

    proof = journal.proof_of(run.records, OLD["id"])
    assert proof is not None
    assert proof.figures["acceptance-short"]["verdict"] == "pass"
    assert proof.load_s is not None
    assert journal.proof_of(run.records, NEW["id"]) is None


def test_a_release_that_failed_its_gates_is_refused_until_it_is_named(serving: World) -> None:
    serving.engines[NEW["id"]] = Engine(acceptance=0.0)
    activate(serving)
    served = serving.containers_made

    with pytest.raises(KnownBad) as refused:
        activate(serving)

    assert refused.value.code == 32
    assert f"release {NEW['id']} failed gate acceptance-short on this host at 2026-" in str(refused.value)
    assert "0.0 % of drafted tokens accepted, expected at least 30.0 %" in str(refused.value)
    assert serving.containers_made == served, "nothing was started"
    with pytest.raises(KnownBad):
        activate(serving, retry=OLD["id"])
    serving.engines[NEW["id"]] = Engine()
    assert activate(serving, retry=NEW["id"]).code == DONE
    assert journal.known_bad(journal.read(serving.paths)) == {}


KILLED = "sparkfleet-serve.service: Main process exited, code=exited, status={}/n/a"


@pytest.mark.parametrize(
    ("engine", "gate"),
    [
        (Engine(never_ready=True), "ready"),
        (Engine(dies_after_s=3.0, last_words=["ValueError: two"]), "ready"),
        (Engine(dies_on_chat=True), "short-chat"),
        (Engine(dies_after_s=25.0), "alive"),
        (Engine(decay_s=20.0), "acceptance-long"),
        (Engine(dies_after_s=3.0, last_words=[MEMORY_ERROR]), None),
        (Engine(dies_after_s=3.0, last_words=[KILLED.format(137)]), None),
        (Engine(dies_after_s=25.0, last_words=[KILLED.format(125)]), None),
        (Engine(dies_after_s=3.0, last_words=[KILLED.format(1)]), "ready"),
    ],
    ids=["never ready", "load fails", "first chat", "dies", "decays", "memory", "killed", "no daemon", "exit 1"],
)
def test_what_is_remembered_of_a_release_is_its_own_fault(serving: World, engine: Engine, gate: str | None) -> None:
    serving.engines[NEW["id"]] = engine

    assert activate(serving).code == REVERTED

    bad = journal.known_bad(journal.read(serving.paths))
    assert (bad.get(NEW["id"]) or {}).get("gate") == gate


def test_what_was_cut_off_is_not_held_against_a_release(serving: World) -> None:
    record = {"t": "2026-11-23T10:00:00.000Z", "activation": "dead", "release": NEW["id"], "state": "probing"}
    journal.append(serving.paths, record)

    assert activate(serving).code == DONE
