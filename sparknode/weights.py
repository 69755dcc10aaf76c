"""What a model's files must say, beyond having the right bytes: tensor headers, configuration, drafter against target.

Pure reading, nothing is loaded: the format is that of safetensors (an 8-byte little-endian length, a JSON header, the
data), the names that of compressed-tensors or ModelOpt. What is expected comes from the controller's catalogue.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# The limit of safetensors' own reader.
_MAX_HEADER = 100_000_000
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "U16": 16}
_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4}
_INDEX = ".safetensors.index.json"


class Unreadable(Exception):
    """A file that is not what its name says."""


def problems(folder: Path, checks: Mapping[str, Any], target: Path | None = None) -> list[str]:
    """Each way in which a model is not what the catalogue says of it; `target` is what a drafter drafts for."""
    found: list[str] = []
    for rule in (_tensors, _config, _drafts):
        try:
            found += rule(folder, checks, target)
        except Unreadable as problem:
            found.append(str(problem))
    return found


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """A safetensors file's tensors by name; raises Unreadable when lengths, shapes and data do not fit each other."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(size - 8, _MAX_HEADER):
                raise Unreadable(f"{path.name}: its header would be {length} bytes of a file of {size}")
            header = json.loads(stream.read(length))
    except (OSError, ValueError, RecursionError) as problem:
        raise Unreadable(f"{path.name}: its header can't be read ({problem})") from None
    if not isinstance(header, dict):
        raise Unreadable(f"{path.name}: its header is no object")
    header.pop("__metadata__", None)
    end = 0
    try:
        for name, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            first, last = row["data_offsets"]
            if first != end or (last - first) * 8 != math.prod(row["shape"]) * _BITS[row["dtype"]]:
                raise Unreadable(f"{path.name}: {name} has bytes {first} to {last} for {row['dtype']} {row['shape']}")
            end = last
    except (KeyError, TypeError, ValueError) as problem:
        raise Unreadable(f"{path.name}: a tensor's entry can't be read ({problem!r})") from None
    if 8 + length + end != size:
        raise Unreadable(f"{path.name}: {size} bytes, its header speaks of {8 + length + end}")
    return header


def read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise Unreadable(f"{path.name}: it can't be read ({problem})") from None
    if not isinstance(document, dict):
        raise Unreadable(f"{path.name}: found no object")
    return document


def _tensors(folder: Path, checks: Mapping[str, Any], _target: Path | None) -> list[str]:
    tensors: dict[str, str] = {}
    shapes: dict[str, list[int]] = {}
    placed: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, row in read_header(path).items():
            if name in tensors:
                return [f"{path.name}: tensor {name} stands in {placed[name]} too"]
            tensors[name], shapes[name], placed[name] = row["dtype"], row["shape"], path.name
    found = list(_index_problems(folder, placed))
    wanted = checks.get("tensor_count")
    if wanted is not None and len(tensors) != wanted:
        found.append(f"{len(tensors)} tensors, expected {wanted}")
    prefixes, infixes = tuple(checks.get("bf16_prefixes") or ()), tuple(checks.get("bf16_infixes") or ())
    kept = [name for name in tensors if name.startswith(prefixes) or any(part in name for part in infixes)]
    found += _first([f"{name} is {tensors[name]}, expected BF16" for name in kept if tensors[name] != "BF16"])
    for part in (*prefixes, *infixes):
        if not any(part in name for name in kept):
            found.append(f"no tensor's name has {part}")
    found += _first(list(_format_problems(tensors, checks)))
    if prefixes:
        # A checkpoint quantised without its vision tower says so in its ignore-list, and vLLM follows that list.
        linear = [name for name in kept if name.startswith(prefixes) and name.endswith("proj.weight")]
        quantised = read_json(folder / "config.json").get("quantization_config") or {}
        ignored = [str(entry) for entry in quantised.get("ignore") or quantised.get("exclude_modules") or []]
        loose = [name for name in linear if len(shapes[name]) == 2 and not _ignored(name, ignored)]
        found += _first([f"config.json: quantization_config.ignore does not cover {name}" for name in loose])
    return found


def _index_problems(folder: Path, placed: Mapping[str, str]) -> Iterator[str]:
    for index in folder.glob(f"*{_INDEX}"):
        listed = read_json(index).get("weight_map")
        if not isinstance(listed, dict):
            yield f"{index.name}: it has no weight_map"
        elif listed != placed:
            wrong = {name for name in listed.keys() | placed.keys() if listed.get(name) != placed.get(name)}
            yield f"{index.name}: {len(wrong)} tensors stand elsewhere than it says, as {min(wrong)}"


def _format_problems(tensors: Mapping[str, str], checks: Mapping[str, Any]) -> Iterator[str]:
    """Names of the right quantisation, each quantised module with all of them, and none of another's."""
    suffixes, refused = tuple(checks.get("tensor_suffixes") or ()), tuple(checks.get("refused_suffixes") or ())
    for name in tensors:
        if name.rpartition(".")[2] in refused:
            yield f"{name} is a name of another quantisation format"
    for name in tensors:
        module, _, last = name.rpartition(".")
        # A plain `weight` stands in modules that were left alone, too.
        if last in suffixes and last != "weight":
            for suffix in suffixes:
                if f"{module}.{suffix}" not in tensors:
                    yield f"{module} has {last} and no {suffix}"
    for suffix in suffixes:
        if not any(name.endswith(f".{suffix}") for name in tensors):
            yield f"no tensor is a {suffix}"


def _ignored(name: str, patterns: list[str]) -> bool:
    module = name.removesuffix(".weight")
    for pattern in patterns:
        try:
            expression = pattern[3:] if pattern.startswith("re:") else re.escape(pattern).replace(r"\*", ".*")
            if re.match(expression, module):
                return True
        except re.error:
            continue
    return False


def _config(folder: Path, checks: Mapping[str, Any], _target: Path | None) -> list[str]:
    config = read_json(folder / "config.json")
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
    quantised = config.get("quantization_config") or {}
    found = [f"{name}: it is missing" for name in checks.get("required_files") or () if not (folder / name).is_file()]
    for key in ("hidden_size", "num_hidden_layers", "vocab_size", "block_size", "num_target_layers"):
        found += _differs(f"config.json: {key}", (text or config).get(key), checks.get(key))
    for key, name in (("quant_format", "format"), ("quant_method", "quant_method")):
        found += _differs(f"config.json: quantization_config.{name}", quantised.get(name), checks.get(key))
    for key in checks.get("required_config_keys") or ():
        if key not in config and key not in (text or {}):
            found.append(f"config.json: {key} is missing")
    if checks.get("eos_token_ids"):
        ends = read_json(folder / "generation_config.json").get("eos_token_id")
        listed = ends if isinstance(ends, list) else [ends]
        if sorted(listed, key=str) != sorted(checks["eos_token_ids"], key=str):
            found.append(f"generation_config.json: eos_token_id is {ends}, expected {checks['eos_token_ids']}")
    return found


def _drafts(folder: Path, checks: Mapping[str, Any], target: Path | None) -> list[str]:
    if target is None:
        return []
    own, other = read_json(folder / "config.json"), read_json(target / "config.json")
    text = other.get("text_config") if isinstance(other.get("text_config"), dict) else other
    read = own.get("dflash_config") or {}
    read_ids, wanted = read.get("target_layer_ids"), checks.get("target_layer_ids")
    found = _differs("config.json: dflash_config.target_layer_ids", read_ids, wanted)
    # A DFlash drafter reads its target's hidden states; any other one needs the same vocabulary alone.
    for key in ("hidden_size", "vocab_size") if read else ("vocab_size",):
        found += _differs(f"drafter's {key} against its target", own.get(key), (text or {}).get(key))
    layers = (text or {}).get("num_hidden_layers")
    if "num_target_layers" in own:
        found += _differs("drafter's num_target_layers against its target", own["num_target_layers"], layers)
    if isinstance(layers, int) and any(not isinstance(one, int) or not 0 <= one < layers for one in read_ids or []):
        found.append(f"drafter reads target_layer_ids {read_ids}, its target has {layers} layers")
    return found


def _differs(what: str, found: object, expected: object) -> list[str]:
    return [] if expected is None or found == expected else [f"{what} is {found}, expected {expected}"]


def _first(texts: list[str], shown: int = 3) -> list[str]:
    """The first of many alike."""
    return texts if len(texts) <= shown else [*texts[:shown], f"… and {len(texts) - shown} more like it"]
