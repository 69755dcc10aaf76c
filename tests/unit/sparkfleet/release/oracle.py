"""A second judge of command lines: the recordings, put to Python's argparse and to nothing else of the product."""

from __future__ import annotations

import argparse
import json
import re
from functools import cache
from typing import Any, NoReturn

from sparkfleet.catalog.contract_table import read_table


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _scaled(text: str) -> int:
    if re.fullmatch(r"-?[0-9]+", text):
        return int(text)
    number, scale = re.fullmatch(r"([0-9.]+)([kmgtKMGT])", text).groups()  # type: ignore[union-attr]
    return int(float(number) * (1000 if scale.islower() else 1024) ** ("kmgt".index(scale.lower()) + 1))


TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "human_readable_int": _scaled,
    "human_readable_int_or_auto": _scaled,
    "json": json.loads,
    "name": lambda text: text.lower().replace("-", "_"),
}


@cache
def parser_for(engine: str, version: str) -> Parser:
    """The parser of a recorded version. Abbreviations are refused, unlike in the real one."""
    parser = Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    if engine == "vllm":
        parser.add_argument("model_tag", nargs="?")
    for name, row in read_table(engine).recording(version)["arguments"].items():
        options, kind = [*row["options"], *row.get("off", ())], TYPES.get(row["type"], str)
        if row["type"] == "bool":
            parser.add_argument(*options, dest=name, action="store_true")
        elif row.get("repeats"):
            parser.add_argument(*options, dest=name, action="append")
        else:
            choices = [kind(choice) for choice in row["choices"]] if "choices" in row else None
            bare: dict[str, Any] = {"const": True} if row.get("values") == "?" else {}
            parser.add_argument(*options, dest=name, nargs=row.get("values"), type=kind, choices=choices, **bare)
    return parser


def accept(engine: str, versions: tuple[str, ...], words: list[str]) -> None:
    """Fail unless one of the recorded versions takes the words and no flag stands there twice."""
    options = [word for word in words if word.startswith("--")]
    complaints = []
    for version in versions:
        recorded = read_table(engine).recording(version)["arguments"].values()
        repeated = {option for row in recorded if row.get("repeats") for option in row["options"]}
        once = [option for option in options if option not in repeated]
        assert len(once) == len(set(once)), options
        try:
            parser_for(engine, version).parse_args(words)
        except (ValueError, AttributeError) as error:
            complaints.append(f"{version}: {error}")
        else:
            return
    raise AssertionError(f"{words} is refused: {complaints}")
