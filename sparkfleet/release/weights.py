"""What a model's files must hold, beyond having the right bytes: tensor headers, configuration, drafter against target.

Pure, and a function of bytes that the lock pins by hash: it is asked once, when the lock is made
(`sparkfleet.release.contents` reads the files), and the lock keeps the hash of what was asked.
 The format is that of safetensors (an 8-byte
little-endian length, a JSON header, the data), the names those of compressed-tensors or ModelOpt.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sparkfleet.catalog.catalog import Drafter, Model
from sparkfleet.release.lockfile import Lock
from sparknode.base.document import canonical

# The limit of safetensors' own reader.
MAX_HEADER = 100_000_000
# What stands before the header: its length.
PREFIX = 8
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "U16": 16}
_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4}
TENSORS, INDEX = ".safetensors", ".safetensors.index.json"
CONFIG, GENERATION = "config.json", "generation_config.json"


class Unreadable(Exception):
    """A file that is not what its name says."""


@dataclass(frozen=True)
class Expected:
    """What the catalogue says of a repository's files, and the commit that a drafter drafts for."""

    checks: Mapping[str, Any]
    target: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """The hash by which a lock names what was held against the files."""
        return hashlib.sha256(canonical({"checks": dict(self.checks), "target": self.target})).hexdigest()


@dataclass(frozen=True)
class Contents:
    """What was read of a repository: its files' names, the beginning of each safetensors file by name with the size of
    the whole, and the text of its JSON documents.
    """

    names: frozenset[str]
    headers: Mapping[str, tuple[int, bytes]] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)

    def document(self, name: str) -> dict[str, Any]:
        try:
            document = json.loads(self.documents[name])
        except KeyError:
            raise Unreadable(f"{name}: it is missing") from None
        except (ValueError, RecursionError) as problem:
            raise Unreadable(f"{name}: it can't be read ({problem})") from None
        if not isinstance(document, dict):
            raise Unreadable(f"{name}: found no object")
        return document


def expected_of(model: Model, row: Model | Drafter, target_commit: str) -> Expected:
    """Return what a model's target or drafter must hold; not every drafter names its target's layers or a block."""
    if isinstance(row, Model):
        return Expected({**row.artefact.model_dump(), "quant_method": row.quantization})
    keys = {"hidden_size", "vocab_size", "num_target_layers", "target_layer_ids", "block_size"}
    return Expected(row.model_dump(include=keys, exclude_defaults=True), (model.repo, target_commit))


def unchecked(lock: Lock, model: Model, drafter: Drafter | None) -> dict[str, Expected]:
    """Return what a lock does not vouch for of a model's repositories, by repository."""
    target = lock.repos.get(model.repo)
    rows: list[Model | Drafter] = [model, *([drafter] if drafter else [])]
    wanted = {
        row.repo: expected_of(model, row, target.commit if target else "") for row in rows if row.repo in lock.repos
    }
    return {repo: one for repo, one in wanted.items() if one.key not in lock.repos[repo].content}


def problems(found: Contents, expected: Expected, target: Contents | None = None) -> list[str]:
    """Return each way in which a model is not what the catalogue says of it; `target` is what a drafter drafts for.

    A row of the catalogue that says nothing asks for nothing.
    """
    if not expected.checks:
        return []
    texts: list[str] = []
    for rule in (_tensors, _config, _drafts):
        try:
            texts += rule(found, expected.checks, target)
        except Unreadable as problem:
            texts.append(str(problem))
        except (AttributeError, KeyError, TypeError) as problem:
            texts.append(f"a configuration has another shape than any that is known ({problem})")
    return texts


def header_length(name: str, size: int, begin: bytes) -> int:
    """Return how long a file's header is by its first bytes; raises Unreadable where it cannot be so long."""
    length = int(struct.unpack("<Q", begin[:PREFIX])[0]) if len(begin) >= PREFIX else 0
    if not 2 <= length <= min(size - PREFIX, MAX_HEADER):
        raise Unreadable(f"{name}: its header would be {length} bytes of a file of {size}")
    return length


def read_header(name: str, size: int, begin: bytes) -> dict[str, dict[str, Any]]:
    """Return a safetensors file's tensors by name; raises Unreadable when lengths, shapes and data do not fit."""
    length = header_length(name, size, begin)
    try:
        header = json.loads(begin[PREFIX : PREFIX + length])
    except (ValueError, RecursionError) as problem:
        raise Unreadable(f"{name}: its header can't be read ({problem})") from None
    if not isinstance(header, dict):
        raise Unreadable(f"{name}: its header is no object")
    header.pop("__metadata__", None)
    end = 0
    try:
        for tensor, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            first, last = row["data_offsets"]
            if first != end or (last - first) * 8 != math.prod(row["shape"]) * _BITS[row["dtype"]]:
                raise Unreadable(f"{name}: {tensor} has bytes {first} to {last} for {row['dtype']} {row['shape']}")
            end = last
    except (KeyError, TypeError, ValueError) as problem:
        raise Unreadable(f"{name}: a tensor's entry can't be read ({problem!r})") from None
    if PREFIX + length + end != size:
        raise Unreadable(f"{name}: {size} bytes, its header speaks of {PREFIX + length + end}")
    return header


def _tensors(found: Contents, checks: Mapping[str, Any], _target: Contents | None) -> list[str]:
    tensors: dict[str, str] = {}
    shapes: dict[str, list[int]] = {}
    placed: dict[str, str] = {}
    for file, (size, begin) in sorted(found.headers.items()):
        for name, row in read_header(file, size, begin).items():
            if name in tensors:
                return [f"{file}: tensor {name} stands in {placed[name]} too"]
            tensors[name], shapes[name], placed[name] = row["dtype"], row["shape"], file
    texts = list(_index_problems(found, placed))
    wanted = checks.get("tensor_count")
    if wanted is not None and len(tensors) != wanted:
        texts.append(f"{len(tensors)} tensors, expected {wanted}")
    prefixes, infixes = tuple(checks.get("bf16_prefixes") or ()), tuple(checks.get("bf16_infixes") or ())
    kept = [name for name in tensors if name.startswith(prefixes) or any(part in name for part in infixes)]
    texts += _first([f"{name} is {tensors[name]}, expected BF16" for name in kept if tensors[name] != "BF16"])
    for part in (*prefixes, *infixes):
        if not any(part in name for name in kept):
            texts.append(f"no tensor's name has {part}")
    texts += _first(list(_format_problems(tensors, checks)))
    if prefixes:
        # A checkpoint quantised without its vision tower says so in its ignore-list, and vLLM follows that list.
        linear = [name for name in kept if name.startswith(prefixes) and name.endswith("proj.weight")]
        quantised = found.document(CONFIG).get("quantization_config") or {}
        ignored = [str(entry) for entry in quantised.get("ignore") or quantised.get("exclude_modules") or []]
        loose = [name for name in linear if len(shapes[name]) == 2 and not _ignored(name, ignored)]
        texts += _first([f"config.json: quantization_config.ignore does not cover {name}" for name in loose])
    return texts


def _index_problems(found: Contents, placed: Mapping[str, str]) -> Iterator[str]:
    for index in sorted(name for name in found.documents if name.endswith(INDEX)):
        listed = found.document(index).get("weight_map")
        if not isinstance(listed, dict):
            yield f"{index}: it has no weight_map"
        elif listed != placed:
            wrong = {name for name in listed.keys() | placed.keys() if listed.get(name) != placed.get(name)}
            yield f"{index}: {len(wrong)} tensors are in other files than it lists, such as {min(wrong)}"


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


def _config(found: Contents, checks: Mapping[str, Any], _target: Contents | None) -> list[str]:
    config = found.document(CONFIG)
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
    quantised = config.get("quantization_config") or {}
    texts = [f"{name}: it is missing" for name in checks.get("required_files") or () if name not in found.names]
    for key in ("hidden_size", "num_hidden_layers", "vocab_size", "block_size", "num_target_layers"):
        texts += _differs(f"config.json: {key}", (text or config).get(key), checks.get(key))
    for key, name in (("quant_format", "format"), ("quant_method", "quant_method")):
        texts += _differs(f"config.json: quantization_config.{name}", quantised.get(name), checks.get(key))
    for key in checks.get("required_config_keys") or ():
        if key not in config and key not in (text or {}):
            texts.append(f"config.json: {key} is missing")
    if checks.get("eos_token_ids"):
        ends = found.document(GENERATION).get("eos_token_id")
        listed = ends if isinstance(ends, list) else [ends]
        if sorted(listed, key=str) != sorted(checks["eos_token_ids"], key=str):
            texts.append(f"{GENERATION}: eos_token_id is {ends}, expected {checks['eos_token_ids']}")
    return texts


def _drafts(found: Contents, checks: Mapping[str, Any], target: Contents | None) -> list[str]:
    if target is None:
        return []
    own, other = found.document(CONFIG), target.document(CONFIG)
    text = other.get("text_config") if isinstance(other.get("text_config"), dict) else other
    read = own.get("dflash_config") or {}
    read_ids, wanted = read.get("target_layer_ids"), checks.get("target_layer_ids")
    texts = _differs("config.json: dflash_config.target_layer_ids", read_ids, wanted)
    # A DFlash drafter reads its target's hidden states; any other one needs the same vocabulary alone.
    for key in ("hidden_size", "vocab_size") if read else ("vocab_size",):
        texts += _differs(f"drafter's {key} against its target", own.get(key), (text or {}).get(key))
    layers = (text or {}).get("num_hidden_layers")
    if "num_target_layers" in own:
        texts += _differs("drafter's num_target_layers against its target", own["num_target_layers"], layers)
    if isinstance(layers, int) and any(not isinstance(one, int) or not 0 <= one < layers for one in read_ids or []):
        texts.append(f"drafter reads target_layer_ids {read_ids}, its target has {layers} layers")
    return texts


def _differs(what: str, found: object, expected: object) -> list[str]:
    return [] if expected is None or found == expected else [f"{what} is {found}, expected {expected}"]


def _first(texts: list[str], shown: int = 3) -> list[str]:
    """The first of many alike."""
    return texts if len(texts) <= shown else [*texts[:shown], f"… and {len(texts) - shown} more like it"]
