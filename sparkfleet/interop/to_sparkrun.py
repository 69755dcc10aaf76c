"""A release as a sparkrun v2 recipe that sparkrun 0.4.2 validates without a warning.

sparkrun distributes the drafter that it finds in `defaults.speculative_config` alone, and its containers are offline: a
drafter or a revision that only the command names is missing there when the engine starts.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

import yaml

from sparkfleet.interop.from_recipe import SPARKRUN_NAMES
from sparkfleet.release.recipe import Recipe
from sparkfleet.release.release import Compiled
from sparknode.state.release import UNLOCKED


def sparkrun_recipe(compiled: Compiled) -> str:
    """Return a sparkrun v2 recipe that serves what the release serves, on one node."""
    recipe, release = compiled.recipe, compiled.release
    commit = release.artefacts[0].commit
    revision = {} if commit == UNLOCKED else {"model_revision": commit}
    defaults, lines = _command(recipe)
    if revision:
        lines.append("--revision {model_revision}")
    if recipe.speculative is not None:
        defaults["speculative_config"] = _json(_drafter(compiled))
        lines.append("--speculative-config '{speculative_config}'")
    document: dict[str, Any] = {
        "recipe_version": "2",
        "model": recipe.model.repo,
        **revision,
        "runtime": recipe.engine.kind,
        "runtime_version": recipe.line.engine_version,
        "container": pulled_as(compiled),
        "min_nodes": 1,
        "max_nodes": 1,
        "metadata": {"description": f"{recipe.model.description}: {recipe.profile.description}"},
        "defaults": defaults,
        "env": dict(recipe.env),
        # An image whose entrypoint is a shell or a server would read sparkrun's own command as its arguments.
        "executor_config": {"entrypoint": ""},
        "command": " \\\n  ".join(lines) + "\n",
    }
    return yaml.dump(document, Dumper=BlockDumper, sort_keys=False, allow_unicode=True, width=110)


def pulled_as(compiled: Compiled) -> str:
    """Name the image so that any registry client finds it, by its digest where that is known."""
    recipe, image = compiled.recipe, compiled.release.image
    pinned = f"@{image.digest}" if image.digest else ""
    return f"{image.repository}:{recipe.image.registry_tag or recipe.choice.image_tag}{pinned}"


def _command(recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """Return the defaults and one flag a line, as placeholders where the defaults have the value."""
    engine = recipe.engine
    program, model = [recipe.line.entrypoint, *engine.program], [*engine.model_words, "{model}"]
    defaults: dict[str, Any] = {}
    lines = [" ".join(program), " ".join(model)] if engine.model_words else [" ".join([*program, *model])]
    for key, words in engine.flags(recipe):
        value = recipe.args[key]
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(one, bool | list) or "'" in str(one):
            lines += [shlex.join(words)] if words else []
            continue
        name = next((theirs for theirs, ours in SPARKRUN_NAMES.items() if ours == key), key)
        defaults[name] = one
        placeholder = f"{{{name}}}" if shlex.quote(str(one)) == str(one) else f"'{{{name}}}'"
        lines.append(f"{words[0]} {placeholder}")
    return defaults, lines


def _drafter(compiled: Compiled) -> dict[str, Any]:
    """Name the drafter by its repository, from which it is fetched; the revision pins it like the target."""
    config = dict(compiled.recipe.speculative or {})
    drafter = next((one for one in compiled.release.artefacts if one.role == "drafter"), None)
    if drafter is None:
        return config
    pinned = {} if drafter.commit == UNLOCKED else {"revision": drafter.commit}
    return {**config, "model": drafter.repo, **pinned}


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":")).replace("'", "\\u0027")


class BlockDumper(yaml.SafeDumper):
    """Writes texts of several lines as they stand."""


def _block_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


BlockDumper.add_representer(str, _block_text)
