"""Releases with one fault each, on two hosts: the canary alone tries it, goes back, and says the gate and its figure.

Each case is a release of its own, because a node does not try one again that failed there.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.rollout import exit_codes
from tests.lab.cases.reading import CURRENT_TAG, OTHER_TAG, STATE, Node, Outcome, pyinfra, wait_for
from tests.lab.config import HOSTS_DIR
from tests.lab.workers import limits, set_knobs

# Two engines of one release differ by this argument alone; the catalogue allows 64 at most.
SEQUENCES = iter(range(63, 0, -1))
# What listens on the engine's port beside it, as an engine that was left behind does (0.22 to 0.24 share theirs).
STRANGER = (
    "import http.server as h,socket as s;"
    "h.HTTPServer.allow_reuse_port=True;o=h.HTTPServer.server_bind;"
    "h.HTTPServer.server_bind=lambda x:(x.socket.setsockopt(s.SOL_SOCKET,s.SO_REUSEPORT,1),o(x));"
    "h.BaseHTTPRequestHandler.do_GET=lambda x:(x.send_response(200),x.end_headers());"
    'h.HTTPServer(("0.0.0.0",8000),h.BaseHTTPRequestHandler).serve_forever()'
)


@dataclass
class Trial:
    """One release that two hosts are to take, and what was there before."""

    pair: list[Node]
    tag: str = OTHER_TAG
    data: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data = [f"image_tag={self.tag}", f"overrides={json.dumps({'max_num_seqs': next(SEQUENCES)})}", *self.data]
        self.canary, self.other = self.pair
        self.old = self.canary.link("verified")
        self.lines = {node.name: len(node.journal()) for node in self.pair}
        self.started = {node.name: (node.container() or {})["State"]["StartedAt"] for node in self.pair}

    def deploy(self) -> Outcome:
        return pyinfra(*limits(self.pair), *(argument for pair in self.data for argument in ("--data", pair)))

    def records(self) -> list[dict[str, Any]]:
        """What the canary's journal says of this trial."""
        return self.canary.journal()[self.lines[self.canary.name] :]

    def states(self) -> list[str]:
        return [record["state"] for record in self.records()]

    def other_is_untouched(self) -> None:
        assert (self.other.container() or {})["State"]["StartedAt"] == self.started[self.other.name]
        assert len(self.other.journal()) == self.lines[self.other.name]
        assert self.other.serves()

    def went_back(self, outcome: Outcome, says: str) -> None:
        assert outcome.code == exit_codes.REVERTED, outcome.output
        assert re.search(says, outcome.output), outcome.output[-3000:]
        last = self.records()[-1]
        assert last["state"] == "reverted", last
        assert re.search(says, last["error"]), last["error"]
        assert self.canary.link("current") == self.canary.link("verified") == self.old
        assert self.canary.serves()
        self.other_is_untouched()


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "never ready": ({"never_ready": True}, r"ready: /health gave .* after 2\d s.*, expected HTTP 200 within 20 s"),
    "dead at the first request": ({"die_on_first_request": True}, r"short-chat: HTTP 500: .*; the \w+ "),
    "empty text": ({"empty_text": True}, r"short-chat: \d+ tokens and no text, expected at least 1 token"),
    "another model's name": (
        {"wrong_model_name": True},
        r"identity: .*/v1/models does not serve '\S+' \(it serves true",
    ),
    "no acceptance": (
        {"acceptance": 0.0},
        r"acceptance-short: 0\.0 % of drafted tokens accepted, expected at least 30\.0 %",
    ),
    "ready then dead": (
        {"exit_after_ready": 1.0},
        r"the (engine|container|unit)\b.*(died|ended|stopped|gone|failed|again)",
    ),
    "a crash that needs concurrency": (
        {"crash_at_concurrency": 3},
        r"burst: \d of 4 requests at once were answered|soaking: the \w+ ",
    ),
    "hang with health 200": ({"hang_with_health_200": True}, r"short-chat: no answer within 8 s"),
    "leaked control tokens": (
        {"leak_control_tokens": True},
        r"short-chat: the text holds the control token '<\|channel>'",
    ),
    "thinking in the text": ({"leak_thinking": True}, r"reasoning: no `reasoning` in the answer"),
    "a tool call that breaks off": ({"broken_tool_json": True}, r"tool-call: the arguments .* are not JSON"),
    "no pictures": ({"refuse_images": True}, r"image: HTTP 400: .*At most 0 image"),
    "a stream without its usage": ({"stream_without_usage": True}, r"streaming: the stream returned no usage"),
    "a stream without its end": (
        {"stream_without_done": True},
        r"streaming: the stream ended after \d+ deltas without \[DONE\]",
    ),
    "GPU gone": ({"gpu_gone": True}, r"gpu: the container does not see the GPU: Failed to initialize NVML"),
    "slow load": ({"slow_load_s": 90}, r"ready: /health gave .* after 2\d s.*, expected HTTP 200 within 20 s"),
    # The lab's rate at 2,600 tokens lies on the line between short prompts and 9,000 tokens.
    "good short and bad long": (
        {"long_acceptance": -5.0},
        r"acceptance-long: 1?\d\.\d % of drafted tokens accepted, expected at least 20\.0 %",
    ),
    "exit 0 loops": ({"exit_0_loop": True}, r"starting: after \d+ s (the|no) (engine|container|unit)"),
    "too few tokens a second": (
        {"tokens_per_second": 40},
        r"tokens-per-second-short: \d+(\.\d)? tok/s.*, expected at least 60",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault(pair: list[Node], fault: str) -> None:
    knobs, says = FAULTS[fault]
    trial = Trial(pair)
    set_knobs(pair, OTHER_TAG, **knobs)

    trial.went_back(trial.deploy(), says)


def test_an_acceptance_that_decays_passes_the_gates_and_not_the_soak(pair: list[Node]) -> None:
    trial = Trial(pair, data=["soak_s=12"])
    set_knobs(pair, OTHER_TAG, acceptance_decay=0.015)

    outcome = trial.deploy()

    trial.went_back(outcome, r"acceptance-[\w-]+: \d+\.\d % of drafted tokens accepted, expected at least \d\d\.0 %")
    assert "soaking" in trial.states(), "it looked well at first"


def test_half_the_tokens_a_second_are_worse_than_the_old_release(pair: list[Node]) -> None:
    """Half as fast is above every floor, and still not what the fleet had."""
    trial = Trial(pair)
    set_knobs(pair, OTHER_TAG, slowdown=2.0)

    outcome = trial.deploy()

    assert outcome.code == exit_codes.REVERTED, outcome.output
    assert re.search(r"worse than the old release: .*tokens-per-second", outcome.output), outcome.output[-3000:]
    assert trial.canary.link("current") == trial.canary.link("verified") == trial.old
    assert trial.canary.serves()
    trial.other_is_untouched()


def test_a_gpu_that_draws_too_little_is_wedged(pair: list[Node]) -> None:
    trial = Trial(pair, data=["profile=lab-power"])
    set_knobs([trial.canary], gpu_power_w=19)

    trial.went_back(trial.deploy(), r"power: 19 W at 650 MHz and 96 % for 20 s, expected at least 30 W")


@contextmanager
def stranger(node: Node) -> Iterator[None]:
    node.sudo(f"systemd-run --quiet --collect --unit=lab-stranger python3 -c '{STRANGER}'")
    try:
        wait_for("the stranger", lambda: "python3" in node.sudo("ss -ltnp 'sport = :8000'"))
        yield
    finally:
        node.sudo("systemctl stop lab-stranger")


def test_a_stale_process_on_the_port_is_named_before_anything_stops(pair: list[Node]) -> None:
    trial = Trial(pair)
    with stranger(trial.canary):
        outcome = trial.deploy()

    trial.went_back(outcome, r"port 8000 is taken by \S*python3 .*\(pid \d+\)")
    assert (trial.canary.container() or {})["State"]["StartedAt"] == trial.started[trial.canary.name]


def test_memory_that_does_not_come_back_starts_nothing(pair: list[Node]) -> None:
    trial = Trial(pair)
    set_knobs([trial.canary], memory_return_s=30)
    outcome = trial.deploy()
    assert outcome.code == exit_codes.HOST_DOWN, outcome.output
    assert re.search(r"memory did not come back: .* GiB", outcome.output), outcome.output[-3000:]
    # Going back finds no memory either: systemd tries again until there is some, and no container is made meanwhile.
    assert trial.canary.unit("ActiveState")["ActiveState"] in ("inactive", "activating")
    assert trial.canary.container() is None
    assert trial.canary.journal()[-1]["state"] == "failed"
    trial.other_is_untouched()

    wait_for("the memory", lambda: trial.canary.available_kib() > 100 * 1024**2, 90)
    again = pyinfra(*limits(pair))
    assert again.code == 0, again.output
    assert trial.canary.link("current") == trial.canary.link("verified") == trial.old
    assert trial.canary.serves()


class Client:
    """Sends one request after the other to a host, as long as a pool's list has the host in it."""

    def __init__(self, node: Node, listed: Path) -> None:
        self._url = f"http://{node.address}:8000/v1/chat/completions"
        self._listed = listed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_all, daemon=True)
        self.results: Counter[str] = Counter()
        self.waits = 0

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _send_all(self) -> None:
        while not self._stop.wait(0.02):
            if self._listed.exists():
                self.waits += 1
                continue
            self.results[ask(self._url, 40)["finish_reason"]] += 1


def ask(url: str, tokens: int) -> dict[str, Any]:
    """One chat; how it ended, and how long it is."""
    chat = {"model": "gemma4-fast", "messages": [{"role": "user", "content": "Search."}], "max_tokens": tokens}
    request = urllib.request.Request(url, json.dumps(chat).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            found = json.loads(answer.read())
    except (OSError, ValueError) as error:
        return {"finish_reason": f"lost: {error}", "tokens": 0}
    return {"finish_reason": found["choices"][0]["finish_reason"], "tokens": found["usage"]["completion_tokens"]}


def test_no_request_is_lost_in_a_rolling_upgrade_with_drain(pair: list[Node]) -> None:
    mark = f"{STATE}/out-of-pool"
    hooks = {"out": {"command": ["touch", mark]}, "in": {"command": ["rm", "-f", mark]}, "timeout_s": 10}
    trial = Trial(pair, data=[f"rotation={json.dumps(hooks)}"])
    # Some 0.4 s a request: there is always one under way when a host is taken out.
    set_knobs(pair, CURRENT_TAG, tokens_per_second=100)
    folders = [HOSTS_DIR / node.name / "data" / "sparkfleet" for node in pair]
    assert all(folder.is_dir() for folder in folders)
    with Client(pair[0], folders[0] / "out-of-pool") as first, Client(pair[1], folders[1] / "out-of-pool") as second:
        outcome = trial.deploy()

    assert outcome.code == 0, outcome.output
    for client, folder in ((first, folders[0]), (second, folders[1])):
        assert set(client.results) == {"length"}, client.results
        assert client.results["length"] > 10
        assert client.waits > 10, "the host was out of the pool for a while"
        assert not (folder / "out-of-pool").exists()
    print(f"requests by how they ended: {dict(first.results)} and {dict(second.results)}")


def test_a_long_request_under_way_is_finished_before_the_engine_stops(pair: list[Node]) -> None:
    trial = Trial(pair)
    set_knobs(pair, CURRENT_TAG, hang_with_health_200=True)
    url = f"http://{trial.canary.address}:8000/v1/chat/completions"
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(url, 120)), daemon=True)
    asking.start()
    outcomes: list[Outcome] = []
    deploying = threading.Thread(target=lambda: outcomes.append(trial.deploy()), daemon=True)
    deploying.start()
    try:
        wait_for("the drain", lambda: "draining" in trial.states())
    finally:
        set_knobs(pair, CURRENT_TAG, hang_with_health_200=False, tokens_per_second=40)
    asking.join(60)
    deploying.join(300)

    assert outcomes
    assert outcomes[0].code == 0, outcomes[0].output
    assert answers == [{"finish_reason": "length", "tokens": 120}]
    notes = [str(record.get("note")) for record in trial.records()]
    assert any(re.match(r"no request left after [1-9]", note) for note in notes), notes
