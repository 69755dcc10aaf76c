"""Every combination of the catalogue, compiled without a lock, as `show` does it."""

from __future__ import annotations

import itertools
from functools import cache

from sparkfleet.catalog.catalog import load
from sparkfleet.errors import FleetError
from sparkfleet.release.recipe import Choice
from sparkfleet.release.release import Compiled, compile_release
from sparkfleet.release.rules import Deployment

CATALOG = load()
TRIAL = Deployment(trial=True)
MODEL = "gemma4-26b-a4b-nvfp4"
CURRENT = "2026-06-11-pr41703"
PREFIX = "2026-06-04-pr44389"
STOCK = "vllm-openai-2026-05-06"


def choice(profile: str = "agentic", image: str = CURRENT, model: str = MODEL, **overrides: object) -> Choice:
    return Choice(model, image, profile, "gb10", overrides=overrides)


def compiled(profile: str = "agentic", image: str = CURRENT, model: str = MODEL, **overrides: object) -> Compiled:
    return compile_release(CATALOG, None, choice(profile, image, model, **overrides), TRIAL)


@cache
def every() -> dict[tuple[str, str, str], Compiled | FleetError]:
    """Profile × image × model on a GB10, each with its release or with the error that refuses it."""
    outcomes: dict[tuple[str, str, str], Compiled | FleetError] = {}
    for names in itertools.product(CATALOG.profiles, CATALOG.images, CATALOG.models):
        try:
            outcomes[names] = compiled(*names)
        except FleetError as error:
            outcomes[names] = error
    return outcomes


def rendered() -> dict[tuple[str, str, str], Compiled]:
    """The combinations that work."""
    return {names: outcome for names, outcome in every().items() if isinstance(outcome, Compiled)}
