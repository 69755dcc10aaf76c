"""A node behind the fake connector: it keeps a lease, activates as it is told to, and says how it stands."""

from __future__ import annotations

import base64
import json
import shlex
from typing import Any

import gevent
from gevent.event import Event
from pyinfra.connectors.util import CommandOutput, OutputLine

from sparknode.facts import collect
from tests.bundles import bundle

Reply = tuple[bool, CommandOutput]


def reply(ok: bool, stdout: str = "", stderr: str = "") -> Reply:
    lines = [OutputLine("stdout", line) for line in stdout.splitlines()]
    return ok, CommandOutput(lines + [OutputLine("stderr", line) for line in stderr.splitlines()])


class FakeNode:
    """One host. Its script: `lease` (why it is refused), `renew` (why it is lost), `silent` (it answers no status),
    `unreachable`, `stage` and `retire` (why they fail), `greeting` and `farewell` (what a login prints), `logs` (of its
    units), `bundle` (what it prints as one), the steps of `activate`; `fetch` and `share` (why they fail), `models`
    (what a fetch brings) and its `address`; `says` (the lines of `stage` and of `activate` before their end).

    A step has a `state` to end in and may have `error`, `figures`, `delay_s`; `lost` (the connection dies while it is
    under way), `refused` (nothing begins, with this text) or `raises` (an error that nobody foresaw). Without a step an
    activation is committed.
    """

    def __init__(self, script: dict[str, Any]) -> None:
        self.script = script
        self.fleet: dict[str, Any] = script["fleet"]
        self.steps: list[dict[str, Any]] = list(script.get("activate", []))
        self.token = 6
        self.ended = Event()

    def answer(self, command: str) -> Reply | None:
        """Return what the node's program answers, or None for a command that is not its own."""
        if "journalctl" in command:
            return reply(True, self.script.get("logs", ""))
        if "sparknode collect " in command:
            packed = base64.b64encode(collect.pack(collect.documents(bundle()))).decode()
            return reply(True, self.script.get("bundle", packed))
        words = shlex.split(command) if "sparknode" in command.split(" ")[0] else []
        if words[1:2] == ["retire"] and "retire" in self.script:
            return reply(False, stderr=self.script["retire"])
        if words[1:2] == ["lease"]:
            return self._greeted(self.lease(words[2]))
        if words[1:2] == ["status"]:
            if self.script.get("silent"):
                raise EOFError("no route to the host")
            return self._greeted(reply(True, json.dumps(self.fleet)))
        if words[1:2] == ["stage"] and "stage" in self.script:
            return reply(False, self._said("stage"), self.script["stage"])
        if words[1:2] == ["stage"] and self._said("stage"):
            return reply(True, self._said("stage"))
        if words[1:2] == ["fetch"]:
            return self.fetch()
        if words[1:2] == ["sync"]:
            return self.sync(words[2])
        if words[1:2] == ["activate"]:
            intent = words[words.index("--intent") + 1] if "--intent" in words else None
            return self.activate(words[2], words[words.index("--rollout") + 1], intent)
        return None

    def _greeted(self, answer: Reply) -> Reply:
        """What a login prints comes first, on the same stream."""
        ok, output = answer
        first = [OutputLine("stdout", line) for line in self.script.get("greeting", [])]
        last = [OutputLine("stdout", line) for line in self.script.get("farewell", [])]
        return ok, CommandOutput([*first, *output.combined_lines, *last])

    def lease(self, verb: str) -> Reply:
        if verb == "take" and "lease" in self.script:
            return reply(False, stderr=self.script["lease"])
        if verb == "take":
            gevent.sleep(0.01)
            self.token += 1
            return reply(True, json.dumps({"token": self.token, "until": "2026-11-23T10:01:00.000Z"}))
        if verb == "renew" and "renew" in self.script:
            return reply(False, stderr=self.script["renew"])
        return reply(True)

    def fetch(self) -> Reply:
        if "fetch" in self.script:
            return reply(False, stderr=self.script["fetch"])
        self.fleet["models"] = self.script["models"]
        return reply(True, "verified and in place")

    def sync(self, verb: str) -> Reply:
        """It gives what it has, until it is told to stop, and takes at once what it has not."""
        if verb == "look":
            document = {"progress": None, "models": self.fleet["models"], "tools": ["swarm", "rsync"]}
            return reply(True, json.dumps({**document, "addresses": ["127.0.0.1", self.script["address"]]}))
        if verb == "share" and self.fleet["models"]:
            assert self.ended.wait(20), "nobody told it to stop"
            return reply(True)
        if verb == "stop":
            self.ended.set()
        return reply(True, "dDE=") if "share" not in self.script else reply(False, stderr=self.script["share"])

    def activate(self, release: str, rollout: str, intent: str | None = None) -> Reply:
        step = self.steps.pop(0) if self.steps else {"state": "committed"}
        if "refused" in step:
            return reply(False, stderr=step["refused"])
        if "raises" in step:
            raise TypeError(step["raises"])
        gevent.sleep(step.get("delay_s", 0))
        if step.get("lost"):
            if "state" in step:
                self._end(release, rollout, intent, step)
            else:
                self.fleet["activation"] = {"release": release, "state": "starting", "alive": True}
            raise EOFError("the connection was reset")
        self._end(release, rollout, intent, step)
        ended = f"{step['state']}: {step.get('error', '')}"
        return reply(step["state"] == "committed", f"{self._said('activate')}\n{ended}".lstrip())

    def _said(self, command: str) -> str:
        return "\n".join(self.script.get("says", {}).get(command, []))

    def _end(self, release: str, rollout: str, intent: str | None, step: dict[str, Any]) -> None:
        figures = {
            name: {"figure": figure, "threshold": None, "unit": "", "verdict": "pass"}
            for name, figure in step.get("figures", {}).items()
        }
        last = {"release": release, "state": step["state"], "rollout": rollout, "error": step.get("error")}
        last |= {"intent": intent, "from": self.fleet.get("verified")}
        times = ("10:00:00.000", "10:00:05.000", "10:00:46.000", "10:02:00.500")
        states = ("leased", "starting", "soaking", step["state"])
        phases = [{"state": state, "t": f"2026-11-23T{t}Z"} for state, t in zip(states, times, strict=True)]
        self.fleet.update(activation=None, last={**last, "figures": figures, "load_s": 41.0, "phases": phases})
        if step["state"] == "committed":
            self.fleet.update(current=release, verified=release, proof={"release": release, "figures": figures})
            self.fleet["serving"] = {"release": release, "unit": "active", "drift": [], "restarts": []}
        if step["state"] == "failed":
            self.fleet["serving"] = {"release": None, "unit": "failed", "drift": []}
