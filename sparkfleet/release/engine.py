"""The serving engines of `catalog/engines.yaml`, and the argument lists that they are started with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparkfleet import ROOT
from sparkfleet.catalog.catalog import Model, Profile, Scalar, read_file
from sparkfleet.catalog.contract import Flag
from sparkfleet.catalog.rows import Row

if TYPE_CHECKING:
    from sparkfleet.release.recipe import Recipe


class Engine(Row):
    kind: str
    # What stands between the image's entrypoint and the arguments, and before the model's folder.
    program: tuple[str, ...]
    model_words: tuple[str, ...]
    card_order: tuple[str, ...]
    # Arguments that are cells of the model's row, and the one that takes the profile's shutdown timeout.
    of_model: dict[str, str]
    stop_argument: str | None
    docker_options: tuple[str, ...]
    caches: dict[str, str]
    memory_argument: str
    context_argument: str
    reserved: frozenset[str]
    # Values by argument that the engine dies of or hurts a host with, and the only ones that it knows.
    refused_values: dict[str, dict[str, str]] = {}
    doubtful_values: dict[str, dict[str, str]] = {}
    known_values: dict[str, tuple[str, ...]] = {}
    # A key of a JSON argument that makes the same choice as an argument of its own.
    same_choice: dict[str, str] = {}
    key_variable: str | None
    # Tool parsers that pass a named or required tool on to the model as it is.
    unforced_tool_parsers: frozenset[str] = frozenset()
    # The variable that limits the engine's own wait while it loads, and its default in seconds.
    ready_timeout: tuple[str, int] | None
    deployable: bool
    # The HTTP side, as releases carry it; `metrics` maps the fleet's words to the engine's names.
    api: dict[str, Any]

    def model_arguments(self, model: Model, profile: Profile, names: tuple[str, ...]) -> dict[str, Scalar]:
        """Return the arguments that model, profile and served names decide; None where the engine's default serves."""
        cells: dict[str, Scalar] = {"served_names": list(names), "served_name": names[0]}
        arguments: dict[str, Scalar] = {
            name: cells.get(cell) or getattr(model, cell) or None for name, cell in self.of_model.items()
        }
        return {**arguments, **({self.stop_argument: profile.timing.shutdown_timeout_s} if self.stop_argument else {})}

    def waiting(self, deadline_s: int) -> dict[str, str]:
        """Return the variable that lets the engine wait for itself as long as the node waits for it."""
        return {self.ready_timeout[0]: str(deadline_s)} if self.ready_timeout else {}

    def flags(self, recipe: Recipe) -> Iterator[tuple[str, list[str]]]:
        """Yield each argument with its words: the card's order first, then the others by name."""
        rest = sorted(key for key in recipe.args if key not in self.card_order)
        for key in [*(key for key in self.card_order if key in recipe.args), *rest]:
            # A key that the engine does not know is still shown.
            unknown = Flag(key, (f"--{key.replace('_', '-')}",))
            value = recipe.args[key]
            shown = _number_text(value) if isinstance(value, float) else value
            yield key, recipe.contract.flags.get(key, unknown).words(shown)

    def arguments(self, recipe: Recipe) -> list[str]:
        """Return the model's folder, the flags, and the drafter last."""
        arguments = [*self.model_words, recipe.model.container_path]
        arguments += [word for _, words in self.flags(recipe) for word in words]
        if recipe.speculative is not None:
            arguments += ["--speculative-config", json.dumps(recipe.speculative, separators=(",", ":"))]
        return arguments

    def command(self, recipe: Recipe) -> list[str]:
        return [*self.program, *self.arguments(recipe)]


def _number_text(value: float) -> str:
    """Write 0.8 as 0.80, like the model card, without losing a digit of 0.355."""
    text = f"{value:.2f}"
    return text if float(text) == value else str(value)


class Engines(Row):
    """catalog/engines.yaml."""

    schema_: int = Field(alias="schema")
    engines: dict[str, Engine]


@cache
def engines() -> dict[str, Engine]:
    """Return the engines by their names in the catalogue; raises CatalogError naming the key that cannot be used."""
    return read_file(ROOT / "catalog" / "engines.yaml", Engines).engines
