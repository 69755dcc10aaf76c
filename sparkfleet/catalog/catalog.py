"""The catalogue: what images, models, profiles and machines are known, read from YAML and validated at the border.

A catalogue is one folder (`catalog/`) and any number of overlays. An overlay has files of the same names; its rows
are added, and a row that exists already is merged key by key (the lab describes its own machines that way).
Sources of the facts stand beside them in the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from sparkfleet import ROOT
from sparkfleet.catalog.contract import Contract, contract_for
from sparkfleet.catalog.rows import (
    AcceptanceGate,
    DrafterSupport,
    DriverVerdict,
    EngineMemory,
    Floor,
    Gates,
    KvLayers,
    Limits,
    LineFloors,
    Loader,
    Proof,
    Row,
    Throughput,
    Timing,
    Watch,
)
from sparkfleet.catalog.yamltext import parse_yaml
from sparkfleet.errors import CatalogError, nearest

SCHEMA = 1

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
# What clients put into `model`; vLLM takes any word that argparse does not take for a flag.
ServedName = Annotated[str, StringConstraints(pattern=r"^[^\s\-][^\s]*$")]
Scalar = bool | int | float | str | list[Any] | dict[str, Any] | None


class Sourced(Row):
    # Where each cell comes from; "*" covers those without an entry.
    sources: dict[str, str] = Field(min_length=1)


class Line(Sourced):
    """What images have in common.

    `kv_cache_dtypes` are those of Triton attention; a sliding layer's cache is held for `kv_batches_in_flight` batches
    at once; `memory_ceiling` and `batched_tokens` are the maker's limits. Where a first start was seen to take longer
    than profiles give it, `load_deadline_s` holds.
    """

    description: str
    engine: Literal["vllm", "sglang"]
    engine_version: str
    architectures: list[Literal["arm64", "amd64"]] = Field(min_length=1)
    entrypoint: str
    image_entrypoint: str | None
    min_driver: str
    cuda_toolkit: str | None
    drafters: dict[str, DrafterSupport] = {}
    v2_model_runner: Literal["unsupported", "baked-off", "must-set", "automatic", "default"] = "unsupported"
    kv_cache_dtypes: list[str]
    kv_batches_in_flight: int = Field(default=1, ge=1)
    memory_ceiling: float | None = Field(default=None, gt=0, le=1)
    batched_tokens: int | None = Field(default=None, gt=0)
    load_deadline_s: int | None = Field(default=None, gt=0)
    args: dict[str, Scalar]
    env: dict[str, str]
    env_deprecated: dict[str, str] = {}
    env_removed: dict[str, str | None] = {}
    env_forbidden: dict[str, str] = {}
    # Faults of this engine that no setting avoids, each with its source.
    cautions: list[str] = []
    # Names that this build's command line has beside those of the release.
    adds: dict[Literal["env", "spec_methods", "spec_fields", "attention_backends"], list[str]] = {}
    gate_overrides: dict[Literal["short", "long", "very_long"], AcceptanceGate | None] = {}
    proof: Proof | None = None

    @property
    def contract(self) -> Contract:
        """The command line of this line's build."""
        return contract_for(self.engine_version, self.engine).extended(self.adds)


class Image(Sourced):
    repository: str
    registry_tag: str | None = None
    line: str
    engine_version: str | None = None
    state: Literal["current", "rollback", "newer", "superseded", "baseline", "candidate"]
    digest: Digest | None = None
    rollback_to: str | None = None
    note: str = ""
    download_bytes: int | None = None
    # What a graph driver keeps of it, and what containerd's store does, which has it packed as well.
    unpacked_bytes: int | None = None
    containerd_bytes: int | None = None
    # Where it is known better than of the line.
    proof: Proof | None = None

    def room(self, store: str | None, factor: float) -> float:
        """Return the bytes that a pull takes in one of Docker's image stores; 0 where nobody knows."""
        known = self.containerd_bytes if store == "containerd" else None
        return known or (self.unpacked_bytes or 0) * factor


class FileFact(Row):
    size: int
    sha256: Sha256


class Drafter(Row):
    repo: str
    revision: Commit | None
    container_path: str
    licence: str
    method: str
    block_size: int | None = None
    causal: bool
    default_tokens: int
    # The backend that this drafter needs, by line; "*" for every line without an entry.
    attention_backends: dict[str, str | None] = {}
    disk_bytes: int | None = None
    kv_layers: list[KvLayers] = []
    hidden_size: int | None = None
    vocab_size: int | None = None
    num_target_layers: int | None = None
    target_layer_ids: list[int] = []
    files: dict[str, FileFact] = {}


class Artefact(Row):
    """Facts about a model's files that a sync proves."""

    tensor_count: int | None = None
    quant_format: str | None = None
    eos_token_ids: list[int] = []
    required_config_keys: list[str] = []
    required_files: list[str] = []
    bf16_prefixes: list[str] = []
    bf16_infixes: list[str] = []
    tensor_suffixes: list[str] = []
    refused_suffixes: list[str] = []
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    vocab_size: int | None = None


class Model(Sourced):
    description: str
    repo: str
    repo_confirmed: bool = True
    loader: Loader | None = None
    revision: Commit | None
    container_path: str
    licence: str
    terms: str | None
    uncensored: bool
    disk_bytes: int | None = None
    loaded_bytes: int | None = None
    max_model_len: int
    quantization: str | None
    attention_backend: str | None
    tool_call_parser: str | None
    reasoning_parser: str | None
    served_names: list[ServedName] = Field(min_length=1)
    trust_remote_code: bool
    dense: bool
    images: bool = False
    drafter: Drafter | None
    # Drafters that a profile may choose instead, by the name that it uses.
    other_drafters: dict[str, Drafter] = {}
    # Layers for multi-token prediction in the checkpoint itself: 0 = none, None = not known.
    mtp_layers: int | None = Field(default=None, ge=0)
    kv_layers: list[KvLayers] = []
    # By image line.
    floors: dict[str, LineFloors] = {}
    artefact: Artefact = Artefact()
    control_token_ids: dict[str, str] = {}
    # Where a row has this key, it goes before the profile's: dense models are several times slower.
    throughput: Throughput | None = None

    @property
    def served_name(self) -> str:
        return self.served_names[0]

    def chosen_drafter(self, name: str | None) -> Drafter | None:
        """Return the drafter that a profile names, or the model's own where it names none."""
        return self.drafter if name is None else self.other_drafters.get(name)

    def repositories(self, drafter: str | None = None) -> list[Model | Drafter]:
        """Return the target and, where there is one, the chosen drafter: one unit for locking and keeping."""
        chosen = self.chosen_drafter(drafter)
        return [self, chosen] if chosen else [self]

    def all_repositories(self) -> list[Model | Drafter]:
        """Return the target with every drafter that a profile may choose."""
        return [*self.repositories(), *self.other_drafters.values()]


class Profile(Sourced):
    description: str
    inherits: str | None = None
    engine: Literal["vllm", "sglang"] = "vllm"
    speculative: bool
    # One of the model's other drafters.
    drafter: str | None = None
    # As vLLM's speculative config has them; a method without a drafter (n-gram, the target's own heads) is named here.
    speculative_args: dict[str, Any] = {}
    served_names: list[ServedName] | None = Field(default=None, min_length=1)
    prefix_caching: Literal["auto", "on", "off"]
    args: dict[str, Scalar]
    env: dict[str, str | None] = {}
    timing: Timing
    gates: Gates
    # For a drafter whose model and line have no floors of their own, where a gate of the profile names none.
    fallback_floor: Floor = Floor()
    watch: Watch | None = None


class Hardware(Sourced):
    description: str
    architecture: Literal["arm64", "amd64"]
    machine: str
    gpu_names: list[str] = Field(min_length=1)
    pci_ids: list[str]
    compute_capability: str
    unified_memory: bool
    gpu_arguments: dict[Literal["gpus", "cdi"], list[str]]
    min_driver: str
    # The only driver branch that this kind of machine is supported with, or all.
    driver_branch: str | None = None
    min_docker: str
    min_kernel: str
    limits: Limits
    engine_memory: EngineMemory | None = None
    # A GPU that has requests and draws less, in watts, does nothing; None where nobody has seen one hang.
    wedged_power_w: float | None = Field(default=None, ge=0)
    # The kind of machine that this one stands for, in a lab alone; what is known of that one holds for it.
    simulates: str | None = None


R = TypeVar("R", bound=BaseModel)


class Catalog(Row):
    lines: dict[str, Line]
    images: dict[str, Image]
    models: dict[str, Model]
    profiles: dict[str, Profile]
    hardware: dict[str, Hardware]
    driver_verdicts: list[DriverVerdict]
    kernel_verdicts: list[DriverVerdict] = []
    toolkit_verdicts: list[DriverVerdict] = []

    def ways_back(self, tag: str) -> list[str]:
        """Return the tags that a rollback from this one leads to, the nearest first."""
        found: list[str] = []
        image = self.images.get(tag)
        while image and image.rollback_to and image.rollback_to not in found:
            found.append(image.rollback_to)
            image = self.images[image.rollback_to]
        return found

    def proven(self, tag: str) -> str:
        """Say how well it is known that this image runs: who saw it, where and when."""
        image = self.images.get(tag)
        proof = image and (image.proof or self.lines[image.line].proof)
        return proof.words() if proof else "no run of it is known"

    def line_of(self, image: Image) -> Line:
        """Return the line with the image's own engine version where it has one."""
        line = self.lines[image.line]
        return line.model_copy(update={"engine_version": image.engine_version}) if image.engine_version else line


FILES: dict[str, tuple[str, ...]] = {
    "images": ("lines", "images"),
    "models": ("models",),
    "profiles": ("profiles",),
    "hardware": ("hardware", "driver_verdicts", "kernel_verdicts", "toolkit_verdicts"),
}


def load(overlays: tuple[Path, ...] = (), base: Path = ROOT / "catalog") -> Catalog:
    """Read `base` and its overlays.

    Raises CatalogError naming the file, the key and the allowed values.
    """
    return _load(base, overlays)


@cache
def _load(base: Path, overlays: tuple[Path, ...]) -> Catalog:
    sections: dict[str, Any] = {}
    origin: dict[tuple[str, str], Path] = {}
    for folder in (base, *overlays):
        for stem, names in FILES.items():
            path = folder / f"{stem}.yaml"
            if folder == base or path.exists():
                _merge_file(path, names, sections, origin)
    sections["profiles"] = _inherited(sections["profiles"], origin)
    return _validated(sections, origin, base)


def _merge_file(
    path: Path, names: tuple[str, ...], sections: dict[str, Any], origin: dict[tuple[str, str], Path]
) -> None:
    document = _read(path)
    if document.pop("schema", None) != SCHEMA:
        raise CatalogError(f"{path}: key 'schema' is missing or not {SCHEMA}", f"schema: {SCHEMA}")
    for name, rows in document.items():
        if name not in names:
            found = f"{path}: unknown key '{name}'{nearest(str(name), list(names))}"
            raise CatalogError(found, f"one of {', '.join(names)}")
        if rows is None:
            continue
        if name.endswith("_verdicts"):
            sections[name] = [*sections.get(name, []), *rows]
            continue
        if not isinstance(rows, dict):
            raise CatalogError(f"{path}: key '{name}' is a {type(rows).__name__}", "a mapping from id to row")
        for row_id, row in rows.items():
            known = sections.setdefault(name, {}).get(row_id)
            sections[name][row_id] = _merged(known, row) if known else row
            origin[(name, str(row_id))] = path


def _read(path: Path) -> dict[str, Any]:
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatalogError(f"{path} does not exist", "a catalogue file", "restore it from version control") from None
    except yaml.YAMLError as error:
        raise CatalogError(f"{path} is not YAML: {error}", remedy="fix the line that the message names") from None
    if not isinstance(document, dict):
        raise CatalogError(f"{path} holds a {type(document).__name__}", "a mapping")
    return document


def _merged(base: Any, patch: Any) -> Any:
    if isinstance(base, dict) and isinstance(patch, dict):
        return {**base, **{key: _merged(base.get(key), value) for key, value in patch.items()}}
    return patch


def _inherited(rows: Mapping[str, Any], origin: Mapping[tuple[str, str], Path]) -> dict[str, Any]:
    def resolve(row_id: str, seen: tuple[str, ...]) -> Any:
        row = rows[row_id]
        parent = row.get("inherits") if isinstance(row, dict) else None
        if parent is None:
            return row
        path = origin.get(("profiles", row_id), "catalogue")
        if parent not in rows:
            known = ", ".join(sorted(rows))
            raise CatalogError(f"{path}: profiles.{row_id}.inherits is '{parent}'", f"one of {known}")
        if parent in seen:
            raise CatalogError(f"{path}: profiles.{row_id} inherits itself through {' → '.join(seen)}")
        return _merged(resolve(parent, (*seen, parent)), row)

    return {row_id: resolve(row_id, (row_id,)) for row_id in rows}


def _validated(sections: dict[str, Any], origin: Mapping[tuple[str, str], Path], base: Path) -> Catalog:
    try:
        catalog = Catalog.model_validate(sections)
    except ValidationError as error:
        raise _readable(error, origin, base) from None
    for tag, image in catalog.images.items():
        named = (("line", image.line, catalog.lines), ("rollback_to", image.rollback_to, catalog.images))
        for key, value, rows in named:
            if value is not None and value not in rows:
                path = origin[("images", tag)]
                raise CatalogError(f"{path}: images.{tag}.{key} is '{value}'", f"one of {', '.join(sorted(rows))}")
    return catalog


def with_profile(catalog: Catalog, profile_id: str, row: Mapping[str, Any]) -> Catalog:
    """Return the catalogue with one more profile, merged with the one that it inherits as in a file.

    Raises CatalogError naming the key that cannot be used.
    """
    parent = catalog.profiles[row["inherits"]].model_dump(exclude_unset=True)
    try:
        profile = Profile.model_validate(_merged(parent, dict(row)))
    except ValidationError as error:
        raise _readable(error, {}, Path("profiles.yaml")) from None
    return catalog.model_copy(update={"profiles": {**catalog.profiles, profile_id: profile}})


def read_file(path: Path, kind: type[R]) -> R:
    """Read a file of the catalogue that is one document; raises CatalogError naming file and key."""
    try:
        return kind.model_validate(_read(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise CatalogError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _readable(error: ValidationError, origin: Mapping[tuple[str, str], Path], base: Path) -> CatalogError:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    row = tuple(where[:2])
    path = origin.get((row[0], row[1])) if len(row) == 2 else None
    allowed = ""
    if first["type"] == "extra_forbidden":
        kinds: tuple[type[Row], ...] = (Line, Image, Model, Profile, Hardware)
        rows = dict(zip(("lines", "images", "models", "profiles", "hardware"), kinds, strict=True))
        fields = list(rows[where[0]].model_fields) if where[0] in rows and len(where) == 3 else []
        allowed = f"one of {', '.join(fields)}" if fields else "no such key"
        message = f"unknown key '{where[-1]}'{nearest(where[-1], fields)}"
    elif first["type"] == "missing":
        message = "this key is missing"
    else:
        message = f"{first['input']!r} is not allowed"
        allowed = first["msg"]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    file = path or base / "*.yaml"
    return CatalogError(f"{file}: {'.'.join(where)}: {message}{more}", allowed)
