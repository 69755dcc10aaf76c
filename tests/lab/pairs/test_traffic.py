"""A rollout on hosts that clients never leave alone: none of it may turn a good release bad."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.cases.reading import OTHER_TAG, Node, pyinfra
from tests.lab.workers import limits

CLIENTS = 10
QUESTION = "Write a poem about the sea and the people who live beside it, in prose."


@contextmanager
def clients(nodes: list[Node]) -> Iterator[list[int]]:
    """Ten clients that ask these hosts in turn without a pause; how often each of them was answered."""
    answered, stop = [0] * CLIENTS, threading.Event()

    def ask(number: int) -> None:
        body = {"model": "gemma4-fast", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 300}
        head = {"Content-Type": "application/json"}
        url = f"http://{nodes[number % len(nodes)].address}:8000/v1/chat/completions"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not stop.is_set():
            try:
                with opener.open(urllib.request.Request(url, json.dumps(body).encode(), head), timeout=30) as answer:
                    answered[number] += bool(answer.read())
            except OSError:
                # Between two engines nobody answers.
                stop.wait(0.1)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    yield answered
    stop.set()
    for thread in threads:
        thread.join(35)


def test_ten_clients_through_an_upgrade_turn_no_good_release_bad(pair: list[Node]) -> None:
    before = {node.name: len(node.journal()) for node in pair}

    with clients(pair[:1]) as answered:
        outcome = pyinfra(*limits(pair), "--data", f"image_tag={OTHER_TAG}")

    assert outcome.code == 0, outcome.output
    busy = pair[0].journal()[before[pair[0].name] :]
    assert [record["state"] for record in busy if record.get("activation")][-1] == "committed"
    verdicts = {record["gate"]["verdict"] for record in busy if "gate" in record}
    assert "not-judged" in verdicts
    assert all(answered)
