"""The real pyinfra command line over the whole deploy, on pyinfra's @fake connector: no host is touched.

The fake node answers what a real `sparknode` would print; the assertions read which commands reached which host.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkfleet import ROOT
from sparkfleet.catalog.catalog import load
from sparkfleet.node.facts import OTHER_PROGRAM
from sparkfleet.node.nodeprogram import program_sha256
from sparkfleet.release import lockfile, weights
from sparkfleet.release.recipe import Choice
from sparkfleet.release.release import compile_release
from sparkfleet.release.rules import Deployment
from sparknode.base.shape import written
from sparknode.state.described import described
from sparknode.state.release import Release
from tests import bundles
from tests.plan import preloaded

TARGET = "AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4"
TARGET_COMMIT = "1d7e8dbc4456fedeacd12e5308c7d43fd489dfa6"
DRAFTER = "z-lab/gemma-4-26B-A4B-it-DFlash"
DRAFTER_COMMIT = "77d4202772dfe50b2396ec7bac9cfffc7b9e7057"
CURRENT_TAG = "2026-06-11-pr41703"
PREFIX_TAG = "2026-06-04-pr44389"


def own_command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`sparkfleet` in a process of its own: reading an inventory lets gevent patch the whole process."""
    with ExitStack() as stack:
        given, output, errors = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        code = preloaded.run("sparkfleet", arguments, (given, output, errors))
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())


def release_of(tag: str) -> Release:
    """The release that the default settings compile to with this image."""
    choice = Choice("gemma4-26b-a4b-nvfp4", tag, "agentic", "gb10")
    locked = lockfile.Lock.model_validate(lock_document())
    return compile_release(load(), locked, choice, Deployment(trial=True)).release


def lock_document() -> dict[str, Any]:
    """A lock for the two tags and the two repositories of the first workload, with made-up hashes."""
    images = {
        tag: {
            "repository": "ghcr.io/aeon-7/aeon-vllm-ultimate",
            "registry_tag": tag,
            "digest": "sha256:" + pair * 32,
            "platforms": {
                "arm64": {
                    "manifest_digest": "sha256:" + pair * 32,
                    "config_digest": "sha256:" + pair[::-1] * 32,
                    "compressed_bytes": 8_200_000_000,
                    "entrypoint": ["bash"],
                }
            },
        }
        for tag, pair in ((CURRENT_TAG, "a1"), (PREFIX_TAG, "b2"))
    }
    file = {"path": "config.json", "size": 2, "sha256": "cd" * 32, "git_blob_sha1": None}
    model = load().models["gemma4-26b-a4b-nvfp4"]
    held = {row.repo: [weights.expected_of(model, row, TARGET_COMMIT).key] for row in model.repositories()}
    return {
        "schema": 1,
        "images": images,
        "repos": {
            TARGET: {"commit": TARGET_COMMIT, "files": [file], "content": held[TARGET]},
            DRAFTER: {"commit": DRAFTER_COMMIT, "files": [file], "content": held[DRAFTER]},
        },
    }


def probe(**changes: Any) -> dict[str, Any]:
    """A fit GB10 host on which nothing was deployed yet; `changes` replace top-level sections."""
    models = [{"repo": TARGET, "commit": TARGET_COMMIT}, {"repo": DRAFTER, "commit": DRAFTER_COMMIT}]
    return {**bundles.document(models=models), **changes}


def serving(release: Release, figures: dict[str, float] | None = None) -> dict[str, Any]:
    """The probe of a host that serves the release, verified with these figures."""
    fleet = {
        **probe()["fleet"],
        "releases": [release.id],
        "current": release.id,
        "verified": release.id,
        "serving": {"release": release.id, "unit": "active", "drift": []},
        "images": [release.image.reference],
        "proof": {"release": release.id, "load_s": 40.0, "figures": gate_figures(figures or {})},
        "release": written(described(release)),
    }
    return probe(sparknode={"installed_sha256": program_sha256()}, fleet=fleet)


def rolled(old: Release, new: Release, **row: Any) -> dict[str, Any]:
    """The probe of a host that was verified with `old` and took `new` since; `row` changes what its journal says."""
    found = serving(new)
    bring = {"release": old.id, "from": None, "state": "committed", "rollout": "r1", "t": "2026-11-20T10:00:00.000Z"}
    brought = {**bring, "release": new.id, "from": old.id, "rollout": "r2", "t": "2026-11-22T10:00:00.000Z"}
    history = [{**bring, "seconds": 200.0}, {**brought, "seconds": 240.0, "operator": "ann@desk", **row}]
    found["fleet"].update(previous=old.id, back=written(described(old)), history=history)
    found["fleet"]["releases"] = sorted([old.id, new.id])
    return found


def gate_figures(figures: dict[str, float]) -> dict[str, Any]:
    """Figures as a node's journal holds them."""
    return {name: {"figure": figure, "threshold": None, "verdict": "pass"} for name, figure in figures.items()}


@dataclass(frozen=True)
class Outcome:
    """What a run printed, how it ended, and the commands that reached hosts, in order."""

    code: int
    output: str
    commands: list[tuple[str, str]]
    spans: list[tuple[str, str, float, float]] = field(default_factory=list)

    def activations(self) -> list[str]:
        return [name for name, command in self.commands if "sparknode activate" in command]

    def named(self, part: str) -> list[str]:
        """The hosts that a command with this text in it reached, in order."""
        return [name for name, command in self.commands if part in command]

    def changes(self) -> list[tuple[str, str]]:
        return [(name, command) for name, command in self.commands if not is_probe(command)]


def is_probe(command: str) -> bool:
    """Does the command only ask the node, with its own program or with one that it is handed?"""
    return "sparknode probe" in command or "sparknode collect " in command or "base64 -d" in command


def plain(text: str) -> str:
    """Return the text without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _rows(trace: Path) -> list[dict[str, Any]]:
    lines = trace.read_text().splitlines() if trace.exists() else []
    return [json.loads(line) for line in lines]


def commands_in(trace: Path) -> list[tuple[str, str]]:
    return [(row["host"], row["command"]) for row in _rows(trace) if "command" in row]


def spans_in(trace: Path) -> list[tuple[str, str, float, float]]:
    """Each activation with its release, when it began and when it ended, on one clock."""
    return [(row["host"], row["activated"], row["began"], row["ended"]) for row in _rows(trace) if "activated" in row]


@dataclass
class Run:
    """A pyinfra that is under way; ended with the block that started it."""

    process: subprocess.Popen[str]
    trace: Path

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=30)

    def commands(self) -> list[tuple[str, str]]:
        return commands_in(self.trace)

    def outcome(self, limit_s: float = 120) -> Outcome:
        """Wait for its end."""
        output, _ = self.process.communicate(timeout=limit_s)
        return Outcome(self.process.returncode, plain(output), self.commands(), spans_in(self.trace))

    def wait_for_command(self, part: str = "", times: int = 1, deadline_s: float = 30) -> None:
        """Wait until so many commands with this text in them have reached hosts."""
        end = time.monotonic() + deadline_s
        while sum(part in command for _, command in self.commands()) < times:
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(f"no command {part!r} reached a host within {deadline_s} s")
            time.sleep(0.05)


class FakeFleet:
    """An inventory of fake hosts in a folder of its own, with a lock beside it."""

    def __init__(self, folder: Path, hosts: list[str], canaries: int = 1) -> None:
        self.folder = folder
        self.hosts = hosts
        self.canaries = canaries
        self.probes: dict[str, Any] = {name: probe() for name in hosts}
        # How each host's node behaves, by host: what tests/plan/fakenode.py reads.
        self.nodes: dict[str, dict[str, Any]] = {name: {} for name in hosts}
        self.data: dict[str, Any] = {
            "allow_unauthenticated": "a test",
            "terms_accepted": {"gemma4-26b-a4b-nvfp4": {"by": "a test", "on": "2026-11-01"}},
            "lock_file": str(folder / "lock.json"),
            "runs_dir": str(folder / "runs"),
        }
        self.host_data: dict[str, dict[str, Any]] = {}
        (folder / "lock.json").write_text(json.dumps(lock_document()))

    def write(self, delay_s: float = 0) -> Path:
        def entry(name: str) -> tuple[str, dict[str, Any]]:
            probed = self.probes[name]
            answer: Any = probed if isinstance(probed, str) or "stderr" in probed else json.dumps(probed)
            bare = (
                isinstance(probed, dict)
                and "stderr" not in probed
                and probed["sparknode"]["installed_sha256"] != program_sha256()
            )
            responses = {"sparknode probe": OTHER_PROGRAM if bare else answer, "base64 -d": answer}
            fake = {"fake_delay": delay_s, "fake_delay_jitter": 0, "fake_responses": responses}
            return (f"@fake/{name}", {**self.data, **self.host_data.get(name, {}), **fake})

        entries = [entry(name) for name in self.hosts]
        for name, probed in self.probes.items():
            self.nodes[name]["fleet"] = probed.get("fleet", {}) if isinstance(probed, dict) else {}
        (self.folder / "nodes.json").write_text(json.dumps(self.nodes))
        path = self.folder / "fleet.py"
        path.write_text(f"canary = {entries[: self.canaries]!r}\nfleet = {entries[self.canaries :]!r}\n")
        return path

    def start(
        self,
        *arguments: str,
        deploy: str = "deploy.py",
        cwd: Path = ROOT,
        inventory: Path | None = None,
        delay_s: float = 0,
        split: bool = False,
        answers: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Run:
        """Start pyinfra in a process of its own, as an operator does; both streams are one unless split.

        `answers` is what is typed at its questions; without it, standard input is closed.
        """
        argv, surroundings = self._prepared(arguments, deploy, inventory or self.write(delay_s), environment or {})
        typed = tempfile.TemporaryFile("w+")  # noqa: SIM115  # the process reads it after this returns
        typed.write(answers or "")
        typed.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.plan.traced", *argv],
            cwd=cwd,
            env=surroundings,
            stdin=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if split else subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        return Run(process, self._trace)

    @property
    def _trace(self) -> Path:
        return self.folder / "trace.jsonl"

    def _prepared(
        self, arguments: Sequence[str], deploy: str, inventory: Path, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Return the arguments and the environment of a run, and forget what the one before left."""
        self._trace.unlink(missing_ok=True)
        own = {"SPARKFLEET_FAKE_FOLDER": str(self.folder), "PYINFRA_PROGRESS": "off", "PYTHONPATH": str(ROOT)}
        return [str(inventory), *deploy.split(), *arguments], {**os.environ, **own, **environment}

    def fails(self, name: str, error: str, state: str = "reverted") -> None:
        """Let a host's next activation end badly."""
        self.nodes[name].setdefault("activate", []).append({"state": state, "error": error})

    def report(self) -> dict[str, Any]:
        """The report that the run left."""
        (path,) = (self.folder / "runs").glob("*.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def run(
        self,
        *arguments: str,
        deploy: str = "deploy.py",
        cwd: Path = ROOT,
        inventory: Path | None = None,
        answers: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run pyinfra to its end; return what it printed, how it ended and what reached the hosts."""
        if any(name.startswith("PYTHON") for name in environment or {}):
            # These are for the interpreter, which then is a new one.
            with self.start(
                *arguments, deploy=deploy, cwd=cwd, inventory=inventory, answers=answers, environment=environment
            ) as run:
                return run.outcome()
        argv, surroundings = self._prepared(arguments, deploy, inventory or self.write(), environment or {})
        with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+", errors="replace") as output:
            given.write(answers or "")
            given.seek(0)
            code = preloaded.run("pyinfra", argv, (given, output, output), cwd, surroundings)
            output.seek(0)
            return Outcome(code, plain(output.read()), commands_in(self._trace), spans_in(self._trace))
