"""A package index on the lab's bridge: the wheels of the seeds' download tool, for the hosts' Pythons."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from pathlib import Path

from tests.lab import ledger, procs
from tests.lab.config import CACHE_DIR, GATEWAY, LAB_DIR, ROOT
from tests.lab.run import run

REQUIREMENTS = ROOT / "catalog" / "hub-tool.txt"
PYTHONS = ("3.11", "3.13")
PORT = 8061
URL = f"http://{GATEWAY}:{PORT}/simple"
LOG = LAB_DIR / "packages.log"


def serve() -> None:
    """Start the index; it ends with the lab."""
    pidfile = LAB_DIR / "packages.pid"
    ledger.record("process", str(pidfile))
    server = [sys.executable, "-u", "-m", "http.server", str(PORT), "--bind", GATEWAY, "--directory", str(_collected())]
    procs.spawn(server, pidfile, LOG)


def taken() -> list[str]:
    """The addresses that wheels were sent to, one for each."""
    text = LOG.read_text(encoding="utf-8") if LOG.exists() else ""
    return re.findall(r'^(\S+) .*"GET /simple/\S+\.whl HTTP/1.1" 200', text, re.MULTILINE)


def _collected() -> Path:
    """The wheels by name, downloaded once, as a folder that pip takes for an index."""
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + "".join(PYTHONS).encode()).hexdigest()[:16]
    folder = CACHE_DIR / f"packages-{key}"
    if not folder.exists():
        part = folder.with_suffix(f".{os.getpid()}.part")
        for python in PYTHONS:
            tags = [f"--python-version={python}", f"--platform=manylinux2014_{platform.machine()}"]
            options = ["download", "--quiet", "--no-deps", "--only-binary=:all:", f"--dest={part}", *tags]
            run(sys.executable, "-m", "pip", *options, "--requirement", str(REQUIREMENTS), timeout_s=600)
        for wheel in part.glob("*.whl"):
            name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
            (part / "simple" / name).mkdir(parents=True, exist_ok=True)
            wheel.rename(part / "simple" / name / wheel.name)
        part.rename(folder)
    return folder
