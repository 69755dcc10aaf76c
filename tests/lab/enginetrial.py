"""Serves the lab's models from a root file system, without docker, and demands their known figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab import labmodels, ledger, procs
from tests.lab.config import LAB_DIR, LabError

NAME = "spelling"
# The card's flags as far as a CPU has them, and the two that keep a CPU's start short and its memory small.
SERVE = (
    "--served-model-name",
    NAME,
    "--host",
    "127.0.0.1",
    "--max-model-len",
    "32768",
    "--max-num-seqs",
    "64",
    "--enable-chunked-prefill",
    "--enable-prefix-caching",
    "--enable-auto-tool-choice",
    "--tool-call-parser",
    "gemma4",
    "--reasoning-parser",
    "gemma4",
    "--enforce-eager",
    "--kv-cache-memory-bytes",
    "268435456",
)
# Drafter's folder -> (acceptance rate, mean acceptance length) by the models' construction.
EXPECTED = {"draft-model": (0.6, 7.0), "draft-model-broken": (0.0, 1.0)}
# What a container would find: devices, processes, shared memory, and an environment without the caller's.
ENTER = """
mount --bind /sys "$0/sys" && mount -t proc proc "$0/proc" || exit 125
mount --bind /dev "$0/dev" && mount -t tmpfs shm "$0/dev/shm" || exit 125
exec chroot "$0" env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 "$@"
"""
LOAD_DEADLINE_S = 300
STOP_DEADLINE_S = 60
ANSWER_TIMEOUT_S = 60
ANSWER_TOKENS = 140


def prove(root: Path) -> list[dict[str, Any]]:
    """Serve once with each drafter; the figures, or a LabError that names the one that is wrong."""
    models = root / "models"
    labmodels.write_all(models)
    try:
        return [_proved(root, drafter, *figures) for drafter, figures in EXPECTED.items()]
    finally:
        shutil.rmtree(models)


def _proved(root: Path, drafter: str, rate: float, length: float) -> dict[str, Any]:
    speculation = {
        "method": "draft_model",
        "model": f"/models/{drafter}",
        "num_speculative_tokens": labmodels.DRAFT_TOKENS,
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    arguments = ["serve", "/models/target", *SERVE, "--port", str(port)]
    arguments += ["--speculative-config", json.dumps(speculation)]
    base = f"http://127.0.0.1:{port}"
    log = LAB_DIR / f"trial-{drafter}.log"
    with _running(root, arguments, log) as process:
        load_s = _wait_until_healthy(base, process, log)
        before = _drafting(base)
        text = _answer(base)
        drafts, proposed, accepted = (b - a for a, b in zip(before, _drafting(base), strict=True))
        memory = _resident_bytes(process.pid)
    if not (labmodels.WORD * ANSWER_TOKENS).startswith(text) or len(text) < ANSWER_TOKENS - 1:
        raise LabError(f"the engine with {drafter} should spell {labmodels.WORD!r} but said {text!r}; see {log}")
    found = (accepted / proposed, 1 + accepted / drafts) if drafts and proposed else None
    if found != (rate, length):
        raise LabError(f"{drafter} gave acceptance and length {found}, expected {(rate, length)}; see {log}")
    return {
        "drafter": drafter,
        "acceptance_rate": rate,
        "mean_acceptance_length": length,
        "load_s": round(load_s, 1),
        "resident_bytes": memory,
    }


@contextmanager
def _running(root: Path, arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The engine in namespaces of its own, as their first process; ended as `docker stop` would."""
    LAB_DIR.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    pidfile = LAB_DIR / "trial.pid"
    ledger.record("process", str(pidfile))
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", ENTER, str(root)]
    process = procs.spawn([*isolated, "vllm", *arguments], pidfile, log)
    try:
        yield process
        for child in procs.children(process.pid):
            procs.send(child, signal.SIGTERM)
        process.wait(timeout=STOP_DEADLINE_S)
    finally:
        ledger.undo("process", str(pidfile))


def _wait_until_healthy(base: str, process: subprocess.Popen[bytes], log: Path) -> float:
    start = time.monotonic()
    while time.monotonic() - start < LOAD_DEADLINE_S:
        try:
            _get(f"{base}/health")
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
                raise LabError(f"the engine ended before it was ready; the end of {log} says:\n{tail}") from None
            time.sleep(0.2)
        else:
            return time.monotonic() - start
    raise LabError(f"the engine was not ready within {LOAD_DEADLINE_S} s; its log is {log}")


def _answer(base: str) -> str:
    request = {
        "model": NAME,
        "temperature": 0,
        "max_tokens": ANSWER_TOKENS,
        "messages": [{"role": "user", "content": "Are you there?"}],
    }
    answer = json.loads(_get(f"{base}/v1/chat/completions", json.dumps(request).encode()))
    return str(answer["choices"][0]["message"]["content"])


def _drafting(base: str) -> tuple[float, float, float]:
    metrics = _get(f"{base}/metrics").decode()

    def total(name: str) -> float:
        found = re.search(rf"^vllm:spec_decode_num_{name}_total{{[^}}]*}} (\S+)$", metrics, re.MULTILINE)
        if found is None:
            raise LabError(f"the engine's metrics have no vllm:spec_decode_num_{name}_total")
        return float(found[1])

    return total("drafts"), total("draft_tokens"), total("accepted_tokens")


def _get(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as response:
        return bytes(response.read())


def _resident_bytes(pid: int) -> int:
    """What the process and its descendants hold in memory, shared pages counted once for each."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident_bytes(child) for child in procs.children(pid))
