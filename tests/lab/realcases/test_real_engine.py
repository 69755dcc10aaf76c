"""The real engine serves tiny models whose drafter is right on 60.0 % of its tokens, or never."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.cases.conftest import lab, nodes_of_the_lab
from tests.lab.cases.reading import Node, Outcome, pyinfra, shown, sparkfleet


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    lab("up", "--nodes", "2", "--engine", "vllm")
    for model in ("lab-spelling", "lab-spelling-broken"):
        outcome = sparkfleet("lock", "--inventory", "inventory/lab.py", "--data", f"model={model}")
        assert outcome.code == 0, outcome.output
    yield nodes_of_the_lab()
    lab("down")


@pytest.fixture(scope="module")
def deployed(nodes: list[Node]) -> Outcome:
    assert nodes
    return pyinfra(timeout_s=580)


def figure(node: Node, gate: str, state: str) -> float:
    """The last figure of a gate that the journal holds for a state."""
    found = [r["gate"] for r in node.journal() if r["state"] == state and r.get("gate", {}).get("name") == gate]
    return float(found[-1]["figure"])


def test_the_good_drafter_is_committed_with_its_exact_figures(deployed: Outcome, nodes: list[Node]) -> None:
    assert deployed.code == 0, deployed.output
    for node in nodes:
        assert figure(node, "acceptance-short", "probing") == pytest.approx(0.6, abs=1e-9)
        assert figure(node, "mean-acceptance-length-short", "probing") == pytest.approx(7.0, abs=1e-9)
        assert node.link("verified") == shown(node.name)["id"]
        assert "simulated" not in node.curl("/version")
        assert '"version":"0.32.0' in node.curl("/version")


def test_a_broken_drafter_is_refused_by_the_acceptance_gate(deployed: Outcome, nodes: list[Node]) -> None:
    assert deployed.code == 0, deployed.output
    canary, second = nodes
    old = shown(canary.name)["id"]
    bad = shown(second.name, "model=lab-spelling-broken")["id"]
    outcome = pyinfra("--data", "model=lab-spelling-broken", timeout_s=580)
    assert outcome.code != 0
    assert "acceptance-short: 0.0 % of drafted tokens accepted, expected at least 55.0 %" in outcome.output
    assert canary.journal()[-1]["state"] == "reverted"
    assert canary.link("current") == canary.link("verified") == old
    assert figure(canary, "acceptance-short", "reverting") == pytest.approx(0.6, abs=1e-9)
    assert second.tried(bad) == 0


def test_a_second_run_changes_nothing(deployed: Outcome, nodes: list[Node]) -> None:
    assert deployed.code == 0, deployed.output
    started = [(node.container() or {})["State"]["StartedAt"] for node in nodes]
    again = pyinfra()
    assert again.code == 0, again.output
    assert [(node.container() or {})["State"]["StartedAt"] for node in nodes] == started
