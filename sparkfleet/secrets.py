"""Secrets of the controller: from the environment, a file or a command, and never out of an inventory."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, MutableMapping
from typing import Any

from sparkfleet.errors import SettingsError

# Read by huggingface_hub.
NAME = "HF_TOKEN"
COMMAND_S = 30
# What tokens of the Hub, of GitHub and of OpenAI-like services look like, and a password in a URL.
_TOKEN = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})|://[^/\s:@]*:[^/\s@]+@")

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = frozenset("secret secrets password passwd passphrase credential credentials apikey pat".split())
_SECRET_AT_END = frozenset("pass pwd auth bearer".split())
_KEYS_BEFORE = frozenset("api private access auth secret signing encryption admin".split())
# A token that is counted or split into, and not one that opens a door.
_COUNTED = frozenset(
    "max min num number budget limit per count id ids size thinking reasoning batch batched start end eos bos pad stop"
    " parser output prompt speculative threshold mask padding details"
    " from classifier special image audio video".split()
)


def provide(environment: MutableMapping[str, str] = os.environ) -> None:
    """Put the token that HF_TOKEN_FILE or HF_TOKEN_COMMAND leads to into this process's environment.

    Raises SettingsError without the text of what was read.
    """
    path, command = environment.get(f"{NAME}_FILE"), environment.get(f"{NAME}_COMMAND")
    # A variable that is set and empty, as a shell or a unit leaves it, is no token.
    if environment.get(NAME) or not (path or command):
        return
    words = ["cat", path] if path else shlex.split(str(command))
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_S, check=True)
        if not done.stdout.strip():
            raise ValueError("nothing came out")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = str(error) if type(error) is ValueError else type(error).__name__
        raise SettingsError(
            f"{f'{NAME}_FILE={path}' if path else f'{NAME}_COMMAND'} gave no secret ({why})",
            f"a file or a command that holds {NAME} alone",
            f"run it by hand, or set {NAME} itself",
        ) from None
    environment[NAME] = done.stdout.strip()


def names_secret(name: str) -> bool:
    """Say whether a setting of this name holds a secret: HF_TOKEN and --api-key do, TOKENIZERS_PARALLELISM does not."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if words[:1] in (["allow"], ["enable"], ["disable"], ["bucket"], ["prefill"]):
        return False
    joined = "".join(words)
    for number, word in enumerate(words):
        if word in _SECRET_WORDS:
            return True
        if word in ("key", "keys") and number and words[number - 1] in _KEYS_BEFORE:
            return True
        if word.endswith("token") and not _COUNTED & {*words}:
            return True
    return joined.endswith(("apikey", "apikeys", "authkey")) or bool({*words[-1:]} & _SECRET_AT_END)


def looks_secret(text: str) -> bool:
    """Is this what a token of the Hub, of GitHub or of OpenAI-like services looks like, or a URL with a password?"""
    return _TOKEN.search(text) is not None


def refuse_in_data(host: str, data: Mapping[str, Any]) -> None:
    """Refuse settings that hold what looks like a token: inventories are committed, shown and logged."""
    for key, value in data.items():
        if looks_secret(str(value)):
            raise SettingsError(
                f"{host}: {key} holds what looks like a token or a password",
                "no secret in the inventory",
                "take it out and revoke it; give HF_TOKEN by environment, HF_TOKEN_FILE or HF_TOKEN_COMMAND, and the "
                "engine's key by api_key_file on the node",
            )
