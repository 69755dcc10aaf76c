"""Log lines as vLLM prints them."""

from __future__ import annotations

import os
import sys
import time


def line(level: str, where: str, message: str, *, process: str = "APIServer") -> None:
    stamp = time.strftime("%m-%d %H:%M:%S")
    for part in message.splitlines() or [""]:
        print(f"({process} pid={os.getpid()}) {level} {stamp} [{where}] {part}", flush=True)


def info(where: str, message: str, *, process: str = "APIServer") -> None:
    line("INFO", where, message, process=process)


def warning(where: str, message: str, *, process: str = "APIServer") -> None:
    line("WARNING", where, message, process=process)


def error(where: str, message: str, *, process: str = "EngineCore") -> None:
    line("ERROR", where, message, process=process)


def uvicorn(message: str) -> None:
    print(f"INFO:     {message}", flush=True)


def fail(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
