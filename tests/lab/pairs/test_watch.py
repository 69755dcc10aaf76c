"""What the minutely look finds on an engine that everybody takes for healthy, and what it does about it."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab import control
from tests.lab.cases.reading import CURRENT_TAG, PREFIX_TAG, STATE, Node, pyinfra, shown, wait_for


@pytest.fixture
def unwatched(node: Node) -> Iterator[Node]:
    """The same host, looked at only when the test says so."""
    node.sudo(f"systemctl stop sparkfleet-watch.timer; rm -f {STATE}/watch.json")
    yield node
    node.sudo("systemctl start sparkfleet-watch.timer")


def look(node: Node) -> dict[str, Any]:
    """One look now, without waiting for the timer's."""
    # More than systemd allows in ten seconds; the timer never comes near that.
    node.sudo("systemctl reset-failed sparkfleet-watch.service; systemctl start sparkfleet-watch.service")
    found: dict[str, Any] = json.loads(node.sudo(f"cat {STATE}/watch.json"))
    return found


def said(node: Node) -> list[str]:
    lines = node.sudo(f"cat {STATE}/journal.jsonl").splitlines()
    return [record["note"] for record in map(json.loads, lines) if record["state"] == "watch"]


def metric(node: Node, name: str) -> str:
    text = node.sudo(f"cat {STATE}/metrics/sparkfleet.prom")
    return next((line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(f"sparkfleet_{name}")), "none")


def started(node: Node) -> str:
    found = node.container()
    return str(found["Id"]) if found else ""


def chat(node: Node, tokens: int) -> None:
    body = {"model": "gemma4-fast", "messages": [{"role": "user", "content": "Search."}], "max_tokens": tokens}
    url, head = f"http://{node.address}:8000/v1/chat/completions", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), head)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        answer.read()


@contextmanager
def hanging(node: Node) -> Iterator[None]:
    """A request that waits for an answer for as long as the engine hangs or lives."""

    def ask() -> None:
        try:
            chat(node, 8)
        except OSError:
            # The engine was restarted under it.
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    wait_for("the request", lambda: 'vllm:num_requests_running{engine="0"' in node.curl("/metrics") and running(node))
    yield
    thread.join(60)


def running(node: Node) -> bool:
    lines = [line for line in node.curl("/metrics").splitlines() if line.startswith("vllm:num_requests_running")]
    return any(float(line.rsplit(" ", 1)[1]) > 0 for line in lines)


def until_it_acts(node: Node, before: str) -> dict[str, Any]:
    """Look again and again while the tokens stay frozen; the look that had the engine restarted, or gave up."""

    def acted() -> dict[str, Any] | None:
        found = look(node)
        return found if found["findings"].get("circuit") or started(node) not in (before, "") else None

    return wait_for("the watch to act", acted, 30)


def test_the_watch_looks_each_minute(node: Node) -> None:
    timer = node.unit("ActiveState", "UnitFileState", "NextElapseUSecRealtime", unit="sparkfleet-watch.timer")
    assert (timer["ActiveState"], timer["UnitFileState"]) == ("active", "enabled")
    assert timer["NextElapseUSecRealtime"]
    found = look(node)
    assert (found["verdict"], found["findings"], found["gpu"]) == ("ok", {}, True)
    assert metric(node, "watch_ok") == "1"


def test_an_engine_that_hangs_with_health_200_is_restarted_once_and_then_left(unwatched: Node) -> None:
    node = unwatched
    first = started(node)
    control.set_knobs(node.name, hang_with_health_200=True)
    with hanging(node):
        assert node.curl("/health", "-o /dev/null", "-w '%{http_code}'") == "200"
        until_it_acts(node, first)
    wait_for("the new engine", lambda: started(node) not in (first, ""), 60)
    second = started(node)
    wait_for("its port", lambda: node.curl("/health", "-o /dev/null", "-w '%{http_code}'") == "200", 60)
    assert any("restarting the engine: 1 requests run and no token came for" in text for text in said(node))
    assert any("the GPU draws 21 W" in text for text in said(node))

    with hanging(node):
        found = until_it_acts(node, second)
        assert "restarted 1 times without a cure" in found["findings"]["circuit"]
        assert metric(node, "watch_circuit_open") == "1"
        assert started(node) == second, "one restart has not cured it, so another one would not"
        control.clear_knobs(node.name)
    assert node.serves()
    assert look(node)["findings"] == {}
    assert said(node)[-1].startswith("well again (it was: ")


def test_a_core_that_stops_while_nobody_asks_is_found_by_a_token_that_never_comes(unwatched: Node) -> None:
    node = unwatched
    first = started(node)
    look(node)
    control.set_knobs(node.name, core_stopped=True)
    assert node.curl("/health", "-o /dev/null", "-w '%{http_code}'") == "200"

    until_it_acts(node, first)

    control.clear_knobs(node.name)
    wait_for("the new engine", lambda: started(node) not in (first, ""), 60)
    wait_for("its port", lambda: node.curl("/health", "-o /dev/null", "-w '%{http_code}'") == "200", 60)
    assert any("nothing ran, and" in text for text in said(node))


def collapse(node: Node) -> dict[str, Any]:
    """Traffic without a single accepted token, and the look after it."""
    look(node)
    control.set_knobs(node.name, acceptance=0.0)
    for _ in range(2):
        chat(node, 120)
    return look(node)


def test_a_collapse_of_acceptance_is_cured_by_a_restart_on_the_image_where_that_is_known(unwatched: Node) -> None:
    node = unwatched
    data = ["--data", f"image_tag={PREFIX_TAG}", "--limit", node.name]
    outcome = pyinfra(*data)
    assert outcome.code == 0, outcome.output
    node.sudo(f"rm -f {STATE}/watch.json")
    first = started(node)

    found = collapse(node)

    assert "0.0 % of drafted tokens accepted, expected at least 5.0 %" in found["findings"]["acceptance"]
    wait_for("the new engine", lambda: started(node) not in (first, ""), 60)
    control.clear_knobs(node.name)
    wait_for("its answer", node.serves, 60)
    assert node.link("verified") == shown(node.name, f"image_tag={PREFIX_TAG}")["id"]


def test_elsewhere_a_collapse_is_only_said(unwatched: Node) -> None:
    node = unwatched
    first = started(node)
    found = collapse(node)
    assert "0.0 % of drafted tokens accepted" in found["findings"]["acceptance"]
    assert started(node) == first
    assert "acceptance" in metric_findings(node)


def metric_findings(node: Node) -> str:
    text = node.sudo(f"cat {STATE}/metrics/sparkfleet.prom")
    return "\n".join(line for line in text.splitlines() if line.startswith("sparkfleet_watch_finding"))


def test_a_gpu_that_the_container_lost_is_said(unwatched: Node) -> None:
    node = unwatched
    control.set_knobs(node.name, CURRENT_TAG, gpu_gone=True)
    found = look(node)
    assert (found["gpu"], found["verdict"]) == (False, "bad")
    assert "does not see the GPU" in found["findings"]["gpu"]
    assert 'finding="gpu"' in metric_findings(node)
