"""Everything that the tests want to know of one vLLM's parser, asked of one process and kept.

What is asked: what it states of itself; the model card's command and people's mistakes in it; every recipe that the
catalogue renders for this version; and a sample of values for every argument that any recorded version has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from sparkfleet.catalog.contract_table import read_table
from tests.contract.card import MISTAKES, card
from tests.contract.real_parser import Result, ask
from tests.contract.table import Recording
from tests.unit.sparkfleet.release.combos import rendered

Words = tuple[str, ...]

# For each type, values that a parser takes and values that it does not.
_SAMPLES: dict[str, tuple[str, ...]] = {
    "int": ("1", "-1", "1k", "1.5", "x"),
    "float": ("1", "0.5", "1e-3", "x"),
    "human_readable_int": ("1", "1k", "2M", "1.5", "x", "auto"),
    "human_readable_int_or_auto": ("1", "1k", "2M", "1.5", "x", "auto"),
    "json": ("{}", "x", "{x:1}"),
    "union_dict_and_str": ('{"a": 1}', "x"),
}


@dataclass(frozen=True)
class Asked:
    recording: Recording
    results: dict[Words, Result]


def recipes(version: str) -> list[Words]:
    """The command lines that the catalogue renders for images with this vLLM, each once."""
    return sorted(
        {
            outcome.recipe.arguments
            for outcome in rendered().values()
            if outcome.recipe.engine.kind == "vllm" and outcome.recipe.contract.basis == (version,)
        }
    )


@cache
def samples() -> list[Words]:
    """Command lines of one argument, right and wrong ones, for every argument in the table."""
    return sorted({("/models/m", *words) for row in read_table("vllm").arguments for words in _of_argument(row)})


def _of_argument(row: dict[str, Any]) -> Iterator[Words]:
    switches = [option for option in (*row["options"], *row.get("off", ())) if option.startswith("--")]
    if row["type"] == "bool":
        yield from ((switch,) for switch in switches)
        return
    choices = sorted({choice for group in row.get("choices", {}).values() for choice in group})
    values = [*(choices or _SAMPLES.get(row["type"], ("x",))), *(["nosuch"] if choices else [])]
    if row["type"] == "name":
        values += [choices[0].upper().replace("_", "-")]
    if row.get("fields"):
        values.append(json.dumps({"nosuch": 1}))
    for value in values:
        yield (switches[0], value)
    yield (switches[0],)
    if row.get("values") in ("+", "*"):
        yield (switches[0], values[0], values[0])


@cache
def asked(version: str) -> Asked:
    lines = list(dict.fromkeys([tuple(card()), *(tuple(row[1]) for row in MISTAKES), *recipes(version), *samples()]))
    stated, *answers = ask(version, [{"contract": True}, *({"argv": list(line)} for line in lines)])
    return Asked(stated.resolved, dict(zip(lines, answers, strict=True)))
