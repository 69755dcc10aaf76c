"""From what a foreign form serves to a profile's row: what the row holds, and what an operator has to know beside it.

The row is tried on the catalogue before it is printed, and what a release of it would run is compared with the original
word by word: whatever differs is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import yaml

from sparkfleet.catalog.arguments import Reading, read_arguments
from sparkfleet.catalog.catalog import Catalog, Line, with_profile
from sparkfleet.catalog.yamltext import parse_yaml
from sparkfleet.errors import FleetError
from sparkfleet.interop import images
from sparkfleet.interop.confidential import is_harmless, looks_secret, refuse_secret, secret_found
from sparkfleet.interop.container import secrets_noted
from sparkfleet.interop.forms import read_form
from sparkfleet.interop.images import ForeignImage
from sparkfleet.interop.models import ForeignModel, find
from sparkfleet.interop.served import MARK, Served, cannot_carry, plain
from sparkfleet.interop.vllm_words import as_vllm_reads, speculation_of
from sparkfleet.release.recipe import Choice, Recipe, compile_recipe
from sparkfleet.release.rules import Deployment, failures
from sparkfleet.secrets import names_secret

BASE = "agentic"
# Named by the model's row, not by a profile.
MODEL_KEYS = ("quantization", "attention_backend", "trust_remote_code", "tool_call_parser", "reasoning_parser")
# Files and repositories that a release does not bring into the container.
_OUTSIDE = ("hf_config_path", "lora_modules", "tool_parser_plugin", "reasoning_parser_plugin", "ssl_keyfile")
# Only vLLM's own limit while it loads: a cold first start takes longer than its default (vllm#48031).
_OURS_UNLESS_SET = ("VLLM_ENGINE_READY_TIMEOUT_S",)
# Names of files that say nothing about what they serve.
_COMMON_NAMES = frozenset(
    "recipe compose docker-compose run run-sh start serve server launch vllm deploy up up-vllm main service".split()
)


@dataclass(frozen=True)
class ImportedProfile:
    """A row for `catalog/profiles.yaml`, and what an operator has to know or add beside it."""

    profile_id: str
    row: dict[str, Any]
    notes: list[str]
    model: str | None = None
    image_tag: str | None = None

    def text(self) -> str:
        document = {"schema": 1, "profiles": {self.profile_id: self.row}}
        notes = (" ".join(plain(note).split()).rstrip(".") for note in self.notes)
        comments = "".join(f"# {note}.\n" for note in notes)
        return comments + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


@dataclass
class _Asked:
    """What the original asks of the engine, by where a release has it; `given` are the arguments that it names."""

    args: dict[str, Any]
    env: dict[str, str]
    speculative: dict[str, Any] | None
    names: list[str] | None
    given: frozenset[str]
    notes: list[str] = field(default_factory=list)


def import_recipe(
    text: str, origin: str, catalog: Catalog, model: str | None = None, service: str | None = None
) -> ImportedProfile:
    """Turn a file of any of the forms into a profile; raises SettingsError for what a profile cannot hold.

    `model` is an id of the catalogue, for a file that names only a folder; `service` names one engine among several.
    """

    def contract_of(image: str | None, version: str | None) -> Any:
        return images.find(catalog, image, version).contract

    def image_entrypoint(image: str) -> str | None:
        line = images.find(catalog, image).line
        return line.image_entrypoint if line else None

    served = read_form(text, origin, service, contract_of, image_entrypoint)
    image = images.find(catalog, served.image, served.version)
    reading = _read(served, image)
    target = find(catalog, served, reading, model)
    asked = _asked(served, reading, target)
    row = _row(catalog, asked, target, image, served, origin)
    profile_id = _profile_id(served, origin, target, catalog)
    notes = list(dict.fromkeys([*_about(served, image, target), *served.notes, *target.notes, *asked.notes]))
    imported = ImportedProfile(profile_id, row, notes, target.id, image.tag)
    return _tried(imported, catalog, asked, target)


def _read(served: Served, image: ForeignImage) -> Reading:
    contract = image.contract
    reading = read_arguments(contract, as_vllm_reads(_without_references(served)))
    if reading.problems:
        problems = "; ".join(f"{rule}: {found}" for rule, found, _ in reading.problems)
        raise cannot_carry(problems, f"arguments of {contract}", "correct the command, or name the image that has them")
    return reading


def _without_references(served: Served) -> list[str]:
    """Leave out flags whose secret is a reference, with a note; raises SettingsError for any other reference."""
    words: list[str] = []
    rest = list(served.words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and names_secret(flag):
            if not equals:
                value = rest.pop(0) if rest and not rest[0].startswith("-") else ""
            if not is_harmless(value):
                raise secret_found(flag)
            served.notes.append(
                f"{flag} is left out: an API key is set with api_key_file, and the controller downloads"
            )
        else:
            words.append(word)
    if unfilled := [word for word in words if MARK in word]:
        found = f"the command needs a shell: {' '.join(unfilled)}"
        raise cannot_carry(found, "literal values", "give its variables values in the file")
    return words


def _asked(served: Served, reading: Reading, target: ForeignModel) -> _Asked:
    values, notes = dict(reading.values), list[str]()
    for key, value in values.items():
        refuse_secret(key, value, "--")
    if names := values.pop("served_model_name", None):
        names = list(names) if isinstance(names, list) else [names]
    for key in ("revision", "code_revision", "tokenizer_revision"):
        _note_revision(values.pop(key, None), f"--{key.replace('_', '-')}", target, notes)
    _note_revision(served.revision, "model_revision", target, notes)
    if values.pop("download_dir", None):
        notes.append("--download-dir is left out: the weights are mounted")
    if (tokenizer := values.pop("tokenizer", None)) not in (None, *target.words):
        raise cannot_carry(f"--tokenizer is {tokenizer}", "the model's own", "remove --tokenizer")
    for key in _OUTSIDE:
        if key in values:
            found = f"--{key.replace('_', '-')} is {values[key]}, which a release does not bring into the container"
            raise cannot_carry(
                found, "files of the image or of the model's folder", f"remove --{key.replace('_', '-')}"
            )
    env = secrets_noted(served.env, notes)
    for name, value in env.items():
        refuse_secret(name, value, "env.")
        if MARK in value:
            raise cannot_carry(f"env.{name} refers to another variable: {value}", "a literal value")
    return _Asked(values, env, speculation_of(values), names, frozenset(reading.values), notes)


def _note_revision(revision: Any, where: str, target: ForeignModel, notes: list[str]) -> None:
    if revision is None:
        return
    ours = target.row.revision if target.row else None
    if str(revision) != ours:
        serves = f"a release serves the catalogue's {ours}" if ours else "the lock decides which one a release serves"
        notes.append(f"{where} is {revision}, and {serves}")


def _row(
    catalog: Catalog, asked: _Asked, target: ForeignModel, image: ForeignImage, served: Served, origin: str
) -> dict[str, Any]:
    base, line, notes = catalog.profiles[BASE], image.line, asked.notes
    caching = asked.args.pop("enable_prefix_caching", None)
    row: dict[str, Any] = {
        "description": served.description or f"what {origin} serves",
        "inherits": BASE,
        "speculative": asked.speculative is not None,
        "prefix_caching": "auto" if caching is None else "on" if caching else "off",
    }
    if asked.speculative is not None:
        name, special = target.own_speculation(asked.speculative, notes)
        row |= {"drafter": name} if name else {}
        given = _speculation_without(special, row, catalog, target, image)
        special = {key: value for key, value in special.items() if key == "method" or given.get(key) != value}
        row |= {"speculative_args": special} if special else {}
    if target.row is None:
        found = {key: asked.args.pop(key) for key in MODEL_KEYS if key in asked.args}
        if found:
            notes.append(f"The model's row takes {', '.join(f'{key}: {value}' for key, value in found.items())}.")
    if (names := target.served_names(asked.names, notes)) is not None:
        row["served_names"] = names
    timeout = asked.args.pop("shutdown_timeout", None)
    if timeout is not None and timeout != base.timing.shutdown_timeout_s:
        row["timing"] = {"shutdown_timeout_s": timeout}
    if target.row is not None and asked.args.get("max_model_len") in (None, -1):
        asked.args["max_model_len"] = target.row.max_model_len
        notes.append(
            f"max_model_len is written out: without it, the engine takes the model's {target.row.max_model_len}"
        )
    asked.args.setdefault("port", 8000)
    own = _of_model(target, asked.args)
    of_line = dict(line.args) if line else {}
    args = {key: value for key, value in asked.args.items() if key not in own and of_line.get(key) != value}
    unset = {key: None for key in {**base.args, **of_line} if key not in asked.args}
    row["args"] = {**args, **unset}
    if env := _environment(asked, line, base.env):
        row["env"] = env
    row["sources"] = {"*": f"imported from {origin} ({served.form})"}
    return row


def _speculation_without(
    special: Mapping[str, Any], row: Mapping[str, Any], catalog: Catalog, target: ForeignModel, image: ForeignImage
) -> Mapping[str, Any]:
    """Return the speculative config that model and image give by themselves, where the catalogue has both."""
    if target.id is None or image.tag is None:
        return {}
    method = {"method": special["method"]} if "method" in special else {}
    bare = {**row, "speculative_args": method, "args": {}, "sources": {"*": "a trial"}}
    try:
        trial = ImportedProfile("trial", bare, [], target.id, image.tag)
        return _compiled(with_profile(catalog, trial.profile_id, bare), trial).speculative or {}
    except FleetError:
        return {}


def _of_model(target: ForeignModel, args: Mapping[str, Any]) -> set[str]:
    """Return the arguments that the model's row gives alike; raises SettingsError for one that it gives otherwise."""
    if target.row is None:
        return set()
    for key in MODEL_KEYS:
        found, ours = args.get(key), getattr(target.row, key) or None
        if found is not None and str(found).lower() != str(ours).lower():
            expected = f"{ours or 'not set'}, as {target.id} in catalog/models.yaml"
            raise cannot_carry(f"{key} is {found} for {target.row.repo}", expected)
    return set(MODEL_KEYS)


def _environment(asked: _Asked, line: Line | None, ours: Mapping[str, str | None]) -> dict[str, str | None]:
    given = {**(line.env if line else {}), **ours}
    env: dict[str, str | None] = {key: value for key, value in asked.env.items() if given.get(key) != value}
    return env | {key: None for key in given if key not in asked.env and key not in _OURS_UNLESS_SET}


def _about(served: Served, image: ForeignImage, target: ForeignModel) -> list[str]:
    contract = image.contract
    notes = [f"Read as {served.form}; checked against the command line of {contract}."]
    if image.version is None:
        notes.append(f"Its vLLM version is unknown: assumed to be {contract.version}.")
    used = {flag.dest for word in served.words if (flag := contract.options.get(word.partition("=")[0]))}
    if doubtful := sorted(used & contract.doubtful):
        notes.append(f"Only one of the recorded versions around it has {', '.join(doubtful)}: it may not be there")
    model = f"For model: {target.id}" if target.id else f"{target.name} is not in catalog/models.yaml: add it"
    if image.tag:
        known = f"image_tag: {image.tag}"
    elif image.note:
        known = f"not for {image.reference} as it stands"
    elif image.reference:
        known = f"{image.reference} is not in catalog/images.yaml: add it"
    else:
        known = "it names no image: choose the image_tag"
    return [*notes, f"{model}; {known}.", *([image.note] if image.note else [])]


def _profile_id(served: Served, origin: str, target: ForeignModel, catalog: Catalog) -> str:
    """Name it after its file, as sparkrun does, or after what it serves; never like a profile that there is."""
    names = (PurePath(origin).stem, served.name, target.name.rpartition("/")[2], "imported")
    ids = [re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") for name in names]
    chosen = next(one for one in ids if one and one not in _COMMON_NAMES)
    number, unique = 2, chosen
    while unique in catalog.profiles:
        unique, number = f"{chosen}-{number}", number + 1
    return unique


def _tried(imported: ImportedProfile, catalog: Catalog, asked: _Asked, target: ForeignModel) -> ImportedProfile:
    """Load what is about to be printed, compile it where the catalogue has model and image, and say what differs."""
    text = imported.text()
    if looks_secret(text):
        raise secret_found("a text of the file")
    row = parse_yaml(text)["profiles"][imported.profile_id]
    notes = list(imported.notes)
    try:
        known = with_profile(catalog, imported.profile_id, row)
        if imported.model is not None and imported.image_tag is not None:
            recipe = _compiled(known, imported)
            notes += differences(asked, recipe, target)
            notes += [
                f"Refused as it stands, {rule.id}: {rule.found}; expected: {rule.expected or 'none of it'}."
                for rule in failures(recipe, Deployment(trial=True))
            ]
    except FleetError as error:
        raise cannot_carry(f"no release can be made of it: {error.found}", error.expected, error.remedy) from None
    notes.append("Deadlines and gates are those of the profile that it inherits: set your own.")
    return ImportedProfile(imported.profile_id, row, notes, imported.model, imported.image_tag)


def _compiled(catalog: Catalog, imported: ImportedProfile) -> Recipe:
    assert imported.model is not None
    assert imported.image_tag is not None
    line = catalog.line_of(catalog.images[imported.image_tag])
    fits = (key for key, row in catalog.hardware.items() if row.architecture in line.architectures)
    return compile_recipe(catalog, Choice(imported.model, imported.image_tag, imported.profile_id, next(fits)))


def differences(asked: _Asked, recipe: Recipe, target: ForeignModel) -> list[str]:
    """Say what a release runs otherwise than the original; raises SettingsError for what it would not run at all."""
    args = asked.args
    lost = [key for key, value in args.items() if not _alike(recipe.args.get(key), value)]
    if lost:
        found = "; ".join(f"{key} is {args[key]}, and a release has {recipe.args.get(key)}" for key in lost)
        raise cannot_carry(found, "what the image's line and the model's row have in the catalogue")
    notes = []
    # Names are said apart, and vLLM turns prefix caching on where the flag is left out.
    apart = {"served_model_name", "enable_prefix_caching"}
    if added := [key for key in recipe.args if key not in asked.given | args.keys() | apart]:
        notes.append(f"A release also passes {', '.join(f'{key}: {recipe.args[key]}' for key in added)}.")
    if recipe.args.get("enable_prefix_caching") is False and recipe.profile.prefix_caching == "auto":
        notes.append("Prefix caching is off in a release: with the drafter, it is unsafe on this image.")
    if added := [f"{key}={value}" for key, value in recipe.env.items() if key not in asked.env]:
        notes.append(f"A release also sets {', '.join(added)}.")
    if (recipe.speculative is None) != (asked.speculative is None):
        raise cannot_carry("the drafter is not what a release would have", "the catalogue's model and image")
    if recipe.speculative is not None and asked.speculative is not None:
        notes += target.speculation_differences(asked.speculative, recipe.speculative)
    return notes


def _alike(ours: Any, theirs: Any) -> bool:
    return bool(ours == theirs) or (isinstance(theirs, str) and str(ours).lower() == theirs.lower())
