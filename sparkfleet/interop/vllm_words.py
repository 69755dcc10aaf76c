"""Rewriting an engine's words as vLLM's own parser rewrites them before argparse sees them.

vllm/utils/argparse_utils.py, `FlexibleArgumentParser.parse_args`, the same from 0.20.1 to 0.33.0: underscores in flags
become dashes, `-O3` becomes `--optimization-level 3`, `--model X` moves to the front, and every `--flag.key value` of
one flag is merged into one JSON argument at the end. Stricter than vLLM where that drops something in silence.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sparkfleet.catalog.contract import is_option, whole_number
from sparkfleet.interop.served import cannot_carry

_UP_TO_DOT = re.compile(r"(?<=--)[^.]*")
_SHORTHAND = {"spec_method": "method", "spec_model": "model", "spec_tokens": "num_speculative_tokens"}


def as_vllm_reads(words: list[str]) -> list[str]:
    """Return the words with every rewriting done; raises SettingsError for what vLLM would lose."""
    dotted: dict[str, dict[str, Any]] = {}
    plain: list[str] = []
    rest = _model_first(list(words))
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if key in ("--config", "--model-config-file"):
            found = f"{key} reads arguments from a file that is not here"
            raise cannot_carry(found, "every argument on the command line", f"replace {key} by what the file holds")
        if not is_option(key):
            plain.append(word)
        elif key.startswith("-O") and word != "-O" and not key.startswith("-O."):
            plain += ["--optimization-level", value if equals else key[2:]]
        elif word == "-O" and rest and rest[0] in ("0", "1", "2", "3"):
            plain.append("--optimization-level")
        elif "." in key:
            if not equals:
                if not rest:
                    raise cannot_carry(f"{key} has no value", "a value")
                value = rest.pop(0)
            _merge(dotted, _dashed(key), value)
        else:
            plain.append(f"{_dashed(key)}={value}" if equals else _dashed(key))
    return [*plain, *(part for flag, document in dotted.items() for part in (flag, json.dumps(document)))]


def _dashed(key: str) -> str:
    return _UP_TO_DOT.sub(lambda found: found[0].replace("_", "-"), key, count=1) if key.startswith("--") else key


def _model_first(words: list[str]) -> list[str]:
    for number, word in enumerate(words):
        if word == "--model" and number + 1 < len(words):
            return [words[number + 1], *words[:number], *words[number + 2 :]]
        if word.startswith("--model="):
            return [word.removeprefix("--model="), *words[:number], *words[number + 1 :]]
    return words


def _merge(dotted: dict[str, dict[str, Any]], key: str, text: str) -> None:
    appended = key.endswith("+")
    flag, *path = key.removesuffix("+").split(".")
    value: Any = text.split(",") if appended else _value(text)
    document = dotted.setdefault(flag, {})
    for part in path[:-1]:
        document = document.setdefault(part, {})
        if not isinstance(document, dict):
            raise cannot_carry(f"{key} is given beside a value for {part}", "one of the two")
    known = document.get(path[-1])
    if isinstance(known, list) and isinstance(value, list):
        value = [*known, *value]
    elif path[-1] in document:
        raise cannot_carry(f"{key} is given twice", "once")
    document[path[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        number = whole_number(text, "human_readable_int")
        return text if number is None else number


def speculation_of(values: dict[str, Any]) -> dict[str, Any] | None:
    """Take the speculative config out of the arguments, its short flags merged into it (arg_utils.py,
    `create_speculative_config`); raises SettingsError where vLLM would raise."""
    text = values.pop("speculative_config", None)
    config: Any = text
    if isinstance(text, str):
        try:
            config = json.loads(text)
        except ValueError:
            config = text
    if config is not None and not isinstance(config, dict):
        raise cannot_carry(f"the speculative config is {text}", "a JSON object")
    short = {key: values.pop(flag) for flag, key in _SHORTHAND.items() if flag in values}
    if config is None and not short:
        return None
    merged = {str(key).replace("-", "_"): value for key, value in (config or {}).items()}
    for flag, key in _SHORTHAND.items():
        if key in short and key in merged:
            found = f"--{flag.replace('_', '-')} is given beside {key} of the speculative config"
            raise cannot_carry(found, "one of the two")
    return merged | short
