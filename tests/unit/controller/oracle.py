"""A second reader of the recorded command lines, made of Python's argparse and of nothing in the product."""

from __future__ import annotations

import argparse
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

CONTRACTS = Path(__file__).resolve().parents[3] / "catalog" / "contracts"


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
    "loads": json.loads,
    "parse_dataclass": json.loads,
}


@cache
def parser_for(engine: str, version: str) -> Parser:
    """The parser of a recorded version. Abbreviations are refused, unlike in the real one."""
    folder = CONTRACTS if engine == "vllm" else CONTRACTS / engine
    rows = json.loads((folder / f"{version}.json").read_text())["flags"]
    parser = Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    if engine == "vllm":
        parser.add_argument("model_tag", nargs="?")
    for row in rows:
        if not row["opts"]:
            continue
        if row["nargs"] == 0:
            parser.add_argument(*row["opts"], dest=row["dest"], action="store_true")
            continue
        parser.add_argument(
            *row["opts"],
            dest=row["dest"],
            nargs=row["nargs"],
            type=TYPES.get(row["type"], str),
            choices=[TYPES.get(row["type"], str)(choice) for choice in row["choices"]] if row["choices"] else None,
        )
    return parser


def accept(engine: str, versions: tuple[str, ...], words: list[str]) -> None:
    """Fail unless one of the recorded versions takes the words and no flag stands there twice."""
    options = [word for word in words if word.startswith("--")]
    assert len(options) == len(set(options)), options
    complaints = []
    for version in versions:
        try:
            parser_for(engine, version).parse_args(words)
        except (ValueError, AttributeError) as error:
            complaints.append(f"{version}: {error}")
        else:
            return
    raise AssertionError(f"{words} is refused: {complaints}")
