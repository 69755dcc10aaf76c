"""Recipes of other tools: a foreign recipe becomes a profile row, a release becomes a sparkrun v2 recipe."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from sparkfleet.arguments import Reading, read_arguments
from sparkfleet.catalog import Catalog, Drafter, Line, Model
from sparkfleet.contract import CONTRACTS, Contract, contract_for, version_key
from sparkfleet.foreign_recipe import SPARKRUN_NAMES, ForeignRecipe, cannot_carry, read_document, read_recipe
from sparkfleet.release import Compiled

BASE = "agentic"
# Named by the model's row, not by a profile.
MODEL_KEYS = ("quantization", "attention_backend", "trust_remote_code", "tool_call_parser", "reasoning_parser")


@dataclass(frozen=True)
class ImportedProfile:
    """A row for `catalog/profiles.yaml`, and what an operator has to know or add beside it."""

    profile_id: str
    row: dict[str, Any]
    notes: list[str]

    def text(self) -> str:
        document = {"schema": 1, "profiles": {self.profile_id: self.row}}
        comments = "".join(f"# {note}\n" for note in self.notes)
        return comments + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def import_recipe(text: str, origin: str, catalog: Catalog) -> ImportedProfile:
    """Turn a sparkrun v2 or eugr v1 recipe into a profile; raises SettingsError for what a profile cannot hold."""
    document = read_document(text)
    tag, line = _image(catalog, document.get("container"))
    newest = max((path.stem for path in CONTRACTS.glob("*.json")), key=version_key)
    contract = contract_for(line.engine_version if line else newest)
    recipe = read_recipe(document, contract)
    reading = read_arguments(contract, recipe.arguments)
    if reading.problems:
        problems = "; ".join(f"{rule}: {found}" for rule, found, _ in reading.problems)
        raise cannot_carry(problems, f"arguments of {contract}")
    if reading.positional not in ([recipe.model], []):
        raise cannot_carry(f"the command serves {' '.join(reading.positional)}", recipe.model)
    models = (pair for pair in catalog.models.items() if pair[1].repo == recipe.model)
    model_id, model = next(models, (None, None))
    row: dict[str, Any] = {"description": recipe.description, "inherits": BASE}
    row |= _speculation(reading, model, line)
    for_model = _take_model_keys(reading, model, model_id)
    args = {key: value for key, value in reading.values.items() if not _given_by_line(line, key, value)}
    timeout = args.pop("shutdown_timeout", None)
    if timeout is not None and timeout != catalog.profiles[BASE].timing.shutdown_timeout_s:
        row["timing"] = {"shutdown_timeout_s": timeout}
    unset = {key: None for key in catalog.profiles[BASE].args if key not in args}
    row["args"] = {**args, **unset}
    env = _environment(catalog, recipe, line)
    if env:
        row["env"] = env
    row["sources"] = {"*": f"imported from {origin} (recipe version {recipe.version})"}
    profile_id = re.sub(r"[^a-z0-9.]+", "-", recipe.name.lower()).strip("-") or "imported"
    return ImportedProfile(profile_id, row, _notes(recipe, contract, model_id, tag, for_model))


def _image(catalog: Catalog, container: object) -> tuple[str | None, Line | None]:
    if not isinstance(container, str):
        return None, None
    name, _, digest = container.partition("@")
    repository, colon, tag = name.rpartition(":")
    repository = repository if colon and "/" not in tag else name
    for image_tag, image in catalog.images.items():
        if image.repository == repository and (
            (digest and image.digest == digest) or (tag in (image_tag, image.registry_tag) and tag != "latest")
        ):
            return image_tag, catalog.line_of(image)
    return None, None


def _speculation(reading: Reading, model: Model | None, line: Line | None) -> dict[str, Any]:
    caching = reading.values.pop("enable_prefix_caching", None)
    row: dict[str, Any] = {"prefix_caching": "auto" if caching is None else "on" if caching else "off"}
    text = reading.values.pop("speculative_config", None)
    if text is None:
        return {"speculative": False, **row}
    config = json.loads(text)
    drafter = model.drafter if model else None
    if drafter is None or not isinstance(config, dict):
        raise cannot_carry(
            f"the speculative config {text} has no drafter in the catalogue",
            "a model of the catalogue with this drafter",
            "add the model and its drafter to catalog/models.yaml first",
        )
    special = _special_speculation(config, drafter, line)
    return {"speculative": True, **row, **({"speculative_args": special} if special else {})}


def _special_speculation(config: dict[str, Any], drafter: Drafter, line: Line | None) -> dict[str, Any]:
    given: dict[str, tuple[Any, ...]] = {
        "method": (drafter.method,),
        "model": (drafter.repo, drafter.container_path),
        "revision": (drafter.revision,),
    }
    for key, allowed in given.items():
        if key in config and config[key] not in allowed:
            found = f"the speculative config has {key} {config[key]!r}"
            raise cannot_carry(found, f"{allowed[0]}, the model's drafter in the catalogue")
    special = {key: value for key, value in config.items() if key not in given}
    if special.get("num_speculative_tokens") == drafter.default_tokens:
        special.pop("num_speculative_tokens")
    support = line.drafters.get(drafter.method) if line else None
    if support and special.get("attention_backend") == support.backend:
        special.pop("attention_backend")
    return special


def _take_model_keys(reading: Reading, model: Model | None, model_id: str | None) -> dict[str, Any]:
    """Take out what a model's row says; return it where there is no such row yet."""
    names = reading.values.pop("served_model_name", None)
    if model is None:
        found = {key: reading.values.pop(key) for key in MODEL_KEYS if key in reading.values}
        return {**found, "served_names": names} if names else found
    if names is not None and names != model.served_names:
        expected = f"{', '.join(model.served_names)}, as {model_id} in the catalogue"
        raise cannot_carry(f"it serves {', '.join(names)}", expected)
    for key in MODEL_KEYS:
        found = reading.values.pop(key, None)
        ours = getattr(model, key) or None
        if found != ours and (found is not None or ours is not None):
            raise cannot_carry(f"{key} is {found} for {model.repo}", f"{ours}, as {model_id} in catalog/models.yaml")
    return {}


def _given_by_line(line: Line | None, key: str, value: Any) -> bool:
    if line is None or key not in line.args:
        return False
    if line.args[key] != value:
        raise cannot_carry(f"{key} is {value}", f"{line.args[key]}, as the image's line in catalog/images.yaml")
    return True


def _environment(catalog: Catalog, recipe: ForeignRecipe, line: Line | None) -> dict[str, str | None]:
    given = {**(line.env if line else {}), **catalog.profiles[BASE].env}
    env: dict[str, str | None] = {key: value for key, value in recipe.env.items() if given.get(key) != value}
    return env | {key: None for key in given if key not in recipe.env}


def _notes(
    recipe: ForeignRecipe, contract: Contract, model_id: str | None, tag: str | None, for_model: dict[str, Any]
) -> list[str]:
    image = (
        f"image_tag: {tag}" if tag else f"{recipe.container or 'no container'} is not in catalog/images.yaml: add it"
    )
    model = f"model: {model_id}" if model_id else f"{recipe.model} is not in catalog/models.yaml: add it"
    notes = [f"Checked against the command line of {contract}.", f"For {model}; {image}."]
    if for_model:
        notes.append(f"The model's row takes {', '.join(f'{key}: {value}' for key, value in for_model.items())}.")
    notes.append("Deadlines and gates are those of the profile that it inherits: set your own.")
    return notes


def export_recipe(compiled: Compiled) -> str:
    """Return a sparkrun v2 recipe that serves what the release serves, on one node."""
    recipe, release = compiled.recipe, compiled.release
    image = release["image"]
    pinned = f"@{image['digest']}" if image["digest"] else ""
    tag = recipe.image.registry_tag or recipe.choice.image_tag
    defaults = {_sparkrun_name(key): value for key, value in recipe.args.items() if not isinstance(value, bool | list)}
    commit = release["artefacts"][0]["commit"]
    document: dict[str, Any] = {
        "recipe_version": "2",
        "model": recipe.model.repo,
        **({} if commit == "unlocked" else {"model_revision": commit}),
        "runtime": recipe.engine.kind,
        "runtime_version": recipe.line.engine_version,
        "container": f"{image['repository']}:{tag}{pinned}",
        "min_nodes": 1,
        "max_nodes": 1,
        "metadata": {"description": f"{recipe.model.description}: {recipe.profile.description}"},
    }
    document |= {"defaults": defaults, "env": dict(recipe.env)}
    # An image whose entrypoint is a shell or a server would read sparkrun's own command as its arguments.
    document["executor_config"] = {"entrypoint": ""}
    document["command"] = " \\\n  ".join(_command_lines(compiled)) + "\n"
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _sparkrun_name(key: str) -> str:
    return next((theirs for theirs, ours in SPARKRUN_NAMES.items() if ours == key), key)


def _command_lines(compiled: Compiled) -> list[str]:
    """One flag a line, as placeholders where the defaults have the value; literal braces are doubled."""
    recipe, engine = compiled.recipe, compiled.recipe.engine
    program, model = [recipe.line.entrypoint, *engine.program], [*engine.model_words, "{model}"]
    lines = [" ".join(program), " ".join(model)] if engine.model_words else [" ".join([*program, *model])]
    for key, words in engine.flags(recipe):
        if isinstance(recipe.args[key], bool | list):
            lines += [" ".join(words)] if words else []
        else:
            lines.append(f"{words[0]} {{{_sparkrun_name(key)}}}")
    if recipe.speculative is not None:
        lines.append(f"--speculative-config '{_drafter_json(compiled)}'")
    return lines


def _drafter_json(compiled: Compiled) -> str:
    """sparkrun fetches the drafter by its repository; the revision pins it like the target."""
    drafter = next(row for row in compiled.release["artefacts"] if row["role"] == "drafter")
    config = {**(compiled.recipe.speculative or {}), "model": drafter["repo"]}
    if drafter["commit"] != "unlocked":
        config["revision"] = drafter["commit"]
    return json.dumps(config, separators=(",", ":")).replace("{", "{{").replace("}", "}}")


class _Dumper(yaml.SafeDumper):
    pass


def _block_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block_text)
