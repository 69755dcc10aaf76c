"""Toy models once for all tests, and a simulated engine as a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import toymodels
from tests.lab.config import ROOT

READY_S = 20.0


@dataclass
class Served:
    """A running engine and how to talk to it."""

    process: subprocess.Popen[str]
    port: int

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        return self.ask(path, None, headers=headers)

    def ask(
        self, path: str, body: Any, *, timeout_s: float = 10.0, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def chat(self, prompt: str, max_tokens: int = 16, **more: Any) -> tuple[int, Any]:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": "gemma4-fast", "messages": messages, "max_tokens": max_tokens, "temperature": 0, **more}
        status, text = self.ask("/v1/chat/completions", body)
        return status, json.loads(text)

    def counters(self) -> dict[str, float]:
        """Every sample of /metrics by its name and its labels other than the two that all have."""
        found = {}
        for line in self.get("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.replace('engine="0",model_name="gemma4-aeon-uncensored"', "")] = float(value)
        return found

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()
            try:
                if self.get("/health")[0] == 200:
                    return
            except OSError:
                time.sleep(0.02)
        pytest.fail(f"the engine was not ready within {READY_S} s")


Start = Callable[..., Served]


@pytest.fixture(scope="session")
def hub_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("hub")
    toymodels.write(store)
    return store


@pytest.fixture(scope="session")
def target(hub_store: Path) -> Path:
    return hub_store / toymodels.TARGET.repo / toymodels.TARGET.commit


@pytest.fixture(scope="session")
def drafter(hub_store: Path) -> Path:
    return hub_store / toymodels.DRAFTER.repo / toymodels.DRAFTER.commit


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def card_arguments(target: Path, drafter: Path, backend: str = "flash_attn") -> list[str]:
    """The model card's own argument list."""
    speculation = {
        "method": "dflash",
        "model": str(drafter),
        "num_speculative_tokens": 10,
        "attention_backend": backend,
    }
    return [
        str(target),
        *("--served-model-name", "gemma4-aeon-uncensored", "gemma4-fast", "gemma4-deep"),
        *("--host", "127.0.0.1", "--tensor-parallel-size", "1", "--dtype", "auto"),
        *("--quantization", "compressed-tensors", "--attention-backend", "triton_attn"),
        *("--max-model-len", "262144", "--max-num-seqs", "64", "--max-num-batched-tokens", "32768"),
        *("--gpu-memory-utilization", "0.80", "--enable-chunked-prefill", "--enable-prefix-caching"),
        *("--trust-remote-code", "--enable-auto-tool-choice", "--tool-call-parser", "gemma4"),
        *("--reasoning-parser", "gemma4", "--speculative-config", json.dumps(speculation)),
    ]


@pytest.fixture
def start(target: Path, drafter: Path) -> Iterator[Start]:
    """Start an engine: ``start(*more_arguments, tag=…, backend=…, knobs={…}, environment={…})``."""
    running: list[Served] = []

    def started(
        *more: str,
        tag: str = "2026-06-11-pr41703",
        backend: str = "flash_attn",
        knobs: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        arguments: list[str] | None = None,
        ready: bool = True,
    ) -> Served:
        port = free_port()
        listed = card_arguments(target, drafter, backend) if arguments is None else arguments
        command = "import sys; from tests.lab.engine.main import main; sys.exit(main(sys.argv[1:]))"
        process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", *listed, "--port", str(port), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("VLLM_")},
                "SPARKFLEET_LAB_TAG": tag,
                "SPARKFLEET_LAB_KNOBS": json.dumps({"load_s": 0, "death_grace_s": 0.2, **(knobs or {})}),
                **(environment or {}),
            },
        )
        served = Served(process, port)
        running.append(served)
        if ready:
            served.wait_ready()
        return served

    yield started
    for served in running:
        served.process.kill()
        served.process.wait()
        if served.process.stdout:
            served.process.stdout.close()
