"""Secrets of the controller: from the environment, a file or a command, and never out of an inventory."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from sparkfleet.errors import SettingsError

# Read by huggingface_hub; NAME_FILE and NAME_COMMAND say where else it is.
NAMES = ("HF_TOKEN",)
COMMAND_S = 30
# What tokens of the Hub, of GitHub and of OpenAI-like services look like.
_TOKEN = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")


def provide(environment: MutableMapping[str, str] = os.environ) -> None:
    """Put each secret that a file or a command holds into this process's environment.

    Raises SettingsError without the text of what was read.
    """
    for name in NAMES:
        path, command = environment.get(f"{name}_FILE"), environment.get(f"{name}_COMMAND")
        if name in environment or not (path or command):
            continue
        try:
            text = Path(path).read_text() if path else _output(str(command))
        except (OSError, UnicodeDecodeError, ValueError, subprocess.SubprocessError) as error:
            source = f"{name}_FILE={path}" if path else f"{name}_COMMAND"
            raise SettingsError(
                f"{source} gave no secret ({type(error).__name__})",
                f"a file or a command that holds {name} alone",
                f"run it by hand, or set {name} itself",
            ) from None
        environment[name] = text.strip()


def _output(command: str) -> str:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=COMMAND_S, check=True)
    return done.stdout


def refuse_in_data(host: str, data: Mapping[str, Any]) -> None:
    """Refuse settings that hold what looks like a token: inventories are committed, shown and logged."""
    for key, value in data.items():
        if _TOKEN.search(str(value)):
            raise SettingsError(
                f"{host}: {key} holds what looks like a token",
                "no secret in the inventory",
                "take it out and revoke it; give HF_TOKEN by environment, HF_TOKEN_FILE or HF_TOKEN_COMMAND, and the "
                "engine's key by api_key_file on the node",
            )
