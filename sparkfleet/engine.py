"""What the tool has to know of a serving engine: how it is started, found ready, recognised, measured and stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sparkfleet.catalog import Model, Profile, Scalar

if TYPE_CHECKING:
    from sparkfleet.recipe import Recipe


@dataclass(frozen=True)
class Api:
    """The engine's HTTP side. `metrics` maps the fleet's words to the engine's names."""

    readiness_path: str
    readiness_generates: bool
    identity_path: str
    version_path: str
    metrics_path: str
    metrics: Mapping[str, str]
    acceptance_is_counter: bool
    health_while_draining: int

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Engine:
    """One kind of engine. `program` stands between the image's entrypoint and the arguments."""

    kind: str
    program: tuple[str, ...]
    model_arguments: Callable[[Model, Profile], dict[str, Scalar]]
    arguments: Callable[[Recipe], list[str]]
    docker_options: tuple[str, ...]
    caches: Mapping[str, str]
    memory_argument: str
    context_argument: str
    reserved: frozenset[str]
    key_variable: str | None
    # The variable that limits the engine's own wait while it loads, and its default in seconds.
    ready_timeout: tuple[str, int] | None
    deployable: bool
    api: Api

    def command(self, recipe: Recipe) -> list[str]:
        """Return everything after the entrypoint."""
        return [*self.program, *self.arguments(recipe)]


def flag_words(recipe: Recipe, key: str, value: Scalar) -> list[str]:
    """Return one argument as words of the command line; a key that the engine does not know is still shown."""
    flag = recipe.contract.flags.get(key)
    option = flag.option if flag else f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        if value:
            return [option]
        return [flag.negation] if flag and flag.negation else []
    if isinstance(value, list):
        return [option, *(str(item) for item in value)]
    return [option, _number_text(value) if isinstance(value, float) else str(value)]


def _number_text(value: float) -> str:
    """Write 0.8 as 0.80, like the model card, without losing a digit of 0.355."""
    text = f"{value:.2f}"
    return text if float(text) == value else str(value)
