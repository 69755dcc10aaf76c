"""Who fetches, who gives and who takes: the WAN is crossed once, by as few as can be, and no secret is in a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plan.harness import (
    CURRENT_TAG,
    DRAFTER,
    DRAFTER_COMMIT,
    TARGET,
    TARGET_COMMIT,
    FakeFleet,
    Outcome,
    lock_document,
    probe,
    release_of,
    serving,
)

HOSTS = [f"spark-{number}" for number in range(1, 5)]
MODELS = [{"repo": TARGET, "commit": TARGET_COMMIT}, {"repo": DRAFTER, "commit": DRAFTER_COMMIT}]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    made = FakeFleet(tmp_path, HOSTS)
    for number, name in enumerate(HOSTS):
        made.nodes[name] |= {"address": f"10.9.0.{number + 1}", "models": MODELS}
        made.probes[name] = probe(fleet={**probe()["fleet"], "models": []})
    return made


def has(fleet: FakeFleet, *names: str) -> None:
    for name in names:
        fleet.probes[name]["fleet"]["models"] = list(MODELS)


def stage(fleet: FakeFleet, *arguments: str) -> Outcome:
    return fleet.run("-y", *arguments)


def counts(outcome: Outcome) -> dict[str, list[str]]:
    verbs = ("sparknode fetch", "sync torrent", "sync share")
    return {verb.split()[-1]: sorted(set(outcome.named(verb))) for verb in verbs}


def test_one_host_fetches_and_the_others_take_it_from_there(fleet: FakeFleet) -> None:
    outcome = stage(fleet)

    assert outcome.code == 0, outcome.output
    assert counts(outcome) == {"fetch": ["spark-1"], "torrent": ["spark-1"], "share": HOSTS}
    assert not [command for _, command in outcome.commands if "hf_secret" in command]
    assert "hf_secret" not in outcome.output


def test_the_next_seed_fetches_when_the_first_cannot(fleet: FakeFleet) -> None:
    fleet.nodes["spark-1"]["fetch"] = "model x: not fetched: 503"
    outcome = stage(fleet)
    assert outcome.code == 0, outcome.output
    assert counts(outcome)["fetch"] == ["spark-1", "spark-2"]
    assert counts(outcome)["torrent"] == ["spark-2"]


def test_no_seed_that_can_is_a_reason_and_nothing_is_activated(fleet: FakeFleet) -> None:
    for name in HOSTS:
        fleet.nodes[name]["fetch"] = f"{name} reaches no Hub"
    outcome = stage(fleet)
    assert outcome.code == 11
    assert "spark-1 reaches no Hub; @fake/spark-2: spark-2 reaches no Hub" in outcome.output
    assert "set fetch_on to controller" in outcome.output
    assert outcome.activations() == []


def test_nothing_is_fetched_where_a_host_has_it(fleet: FakeFleet) -> None:
    has(fleet, "spark-3")
    outcome = stage(fleet)
    assert outcome.code == 0, outcome.output
    assert counts(outcome) == {"fetch": [], "torrent": ["spark-3"], "share": HOSTS}


def test_offline_and_nowhere_is_said(fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = stage(fleet)
    assert outcome.code == 11
    assert "is on no host, and HF_HUB_OFFLINE is set" in outcome.output
    assert counts(outcome)["fetch"] == []


def lock_of_an_earlier_version(fleet: FakeFleet) -> None:
    document = lock_document()
    for repo in document["repos"].values():
        del repo["content"]
    (fleet.folder / "lock.json").write_text(json.dumps(document))


@pytest.mark.parametrize("way", ["fetch_on=seeds", "fetch_on=controller", "distribution=controller"])
def test_a_lock_that_does_not_vouch_for_the_content_has_it_read_before_any_download(fleet: FakeFleet, way: str) -> None:
    lock_of_an_earlier_version(fleet)
    outcome = stage(fleet, "--data", "hub_endpoint=http://127.0.0.1:9", "--data", way)
    assert outcome.code == 11
    assert f"the Hub refused to serve the files of {TARGET}" in outcome.output
    assert "python -m sparkfleet lock" in outcome.output
    assert counts(outcome) == {"fetch": [], "torrent": [], "share": []}
    assert outcome.activations() == []


def test_what_a_host_has_needs_no_lock_that_vouches_for_it(fleet: FakeFleet) -> None:
    lock_of_an_earlier_version(fleet)
    has(fleet, "spark-3")
    outcome = stage(fleet, "--data", "hub_endpoint=http://127.0.0.1:9")
    assert outcome.code == 0, outcome.output
    assert f"content-unchecked: what the files of {TARGET} hold is unknown" in outcome.output
    assert counts(outcome) == {"fetch": [], "torrent": ["spark-3"], "share": HOSTS}


def test_a_node_added_alone_takes_from_hosts_that_the_limit_left_out(fleet: FakeFleet) -> None:
    has(fleet, "spark-1", "spark-2", "spark-3")
    outcome = stage(fleet, "--limit", "@fake/spark-4")
    assert outcome.code == 0, outcome.output
    assert counts(outcome)["fetch"] == []
    assert "spark-4" in counts(outcome)["share"]
    others = [command for name, command in outcome.commands if name != "spark-4"]
    assert others
    assert all("sparknode sync" in command for command in others), others


@pytest.mark.parametrize("models", [[{"repo": 5}], "all of them", [["a", "b"]]])
def test_a_host_outside_the_run_with_an_unreadable_document_gives_nothing(fleet: FakeFleet, models: object) -> None:
    has(fleet, "spark-2", "spark-3")
    fleet.probes["spark-1"]["fleet"]["models"] = models
    outcome = stage(fleet, "--limit", "@fake/spark-4")
    assert outcome.code == 0, outcome.output
    assert "spark-1 outside the --limit gives nothing: @fake/spark-1: sync look.models" in outcome.output
    assert "Traceback" not in outcome.output
    assert counts(outcome)["fetch"] == []


def test_a_host_of_the_run_with_an_unreadable_document_ends_it_unchanged(fleet: FakeFleet) -> None:
    fleet.probes["spark-1"]["fleet"]["history"] = {"state": "committed"}
    outcome = stage(fleet)
    assert outcome.code != 0
    assert "spark-1: probe: " in outcome.output
    assert "probe.fleet.history: found" in outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.changes() == []


def test_a_host_that_gets_nothing_fails_alone_before_anything_is_activated(fleet: FakeFleet) -> None:
    has(fleet, "spark-1")
    fleet.nodes["spark-3"]["share"] = "10.9.0.1:6891 does not give"
    outcome = stage(fleet)
    assert outcome.code == 11
    assert "does not give" in outcome.output
    assert outcome.activations() == []


def test_everything_here_costs_no_further_trip(fleet: FakeFleet) -> None:
    has(fleet, *HOSTS)
    outcome = stage(fleet)
    assert counts(outcome) == {"fetch": [], "torrent": [], "share": []}
    assert not outcome.named("sync look")


def test_unchanged_artefacts_cost_one_round_trip_a_host(fleet: FakeFleet) -> None:
    for name in HOSTS:
        fleet.probes[name] = serving(release_of(CURRENT_TAG))
        has(fleet, name)
    outcome = fleet.run("-y", deploy="tasks/stage.py")
    assert outcome.code == 0, outcome.output
    assert sorted(name for name, _ in outcome.commands) == HOSTS, outcome.commands


@pytest.mark.parametrize("task", ["verify", "prune"])
def test_on_a_bare_host_there_is_nothing_to_hash_or_to_remove(fleet: FakeFleet, task: str) -> None:
    outcome = fleet.run("-y", deploy=f"tasks/{task}.py")
    assert outcome.code == 0, outcome.output
    assert not outcome.named(f"sparknode {task}")
    fleet.probes[HOSTS[0]] = serving(release_of(CURRENT_TAG))
    outcome = fleet.run("-y", deploy=f"tasks/{task}.py")
    assert {name for name, command in outcome.commands if f"sparknode {task}" in command} == {HOSTS[0]}
