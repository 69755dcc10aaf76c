"""When a combination is refused: the nearest one that works, found by changing as little as possible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparkfleet.catalog.catalog import Catalog
from sparkfleet.errors import FleetError
from sparkfleet.release.recipe import Choice, compile_recipe
from sparkfleet.release.rules import Deployment, failures

_STATES = {"current": 0, "baseline": 1, "rollback": 2, "newer": 3, "superseded": 3, "candidate": 4}


def nearest_working(catalog: Catalog, choice: Choice, deployment: Deployment) -> str | None:
    """Return the nearest combination that no rule refuses, in words, or None when there is none."""
    # What is not written down yet (key, terms) is its own remedy and says nothing about the combination.
    reason = deployment.allow_unauthenticated or "to be written down"
    settled = replace(deployment, terms_accepted=True, allow_unauthenticated=reason)
    for candidate in _candidates(catalog, choice):
        try:
            if not failures(compile_recipe(catalog, candidate), settled):
                return _difference(choice, candidate)
        except FleetError:
            continue
    return None


def _candidates(catalog: Catalog, choice: Choice) -> Iterator[Choice]:
    fewer = [{key: value for key, value in choice.overrides.items() if key != dropped} for dropped in choice.overrides]
    override_sets = [choice.overrides, *fewer, {}]
    images = sorted(catalog.images, key=lambda tag: (_STATES[catalog.images[tag].state], tag))
    profiles = [choice.profile, *(profile for profile in catalog.profiles if profile != choice.profile)]
    for overrides in override_sets:
        yield replace(choice, overrides=overrides)
    for profile in profiles[1:]:
        for overrides in (choice.overrides, {}):
            yield replace(choice, profile=profile, overrides=overrides)
    for profile in profiles:
        for tag in images:
            for overrides in (choice.overrides, {}):
                yield replace(choice, image_tag=tag, image_line=None, profile=profile, overrides=overrides)


def _difference(asked: Choice, works: Choice) -> str:
    parts = []
    if works.profile != asked.profile:
        parts.append(f"profile {works.profile}")
    if works.image_tag != asked.image_tag:
        parts.append(f"image {works.image_tag}")
    dropped = [key for key in asked.overrides if key not in works.overrides]
    if dropped:
        parts.append(f"without {', '.join(dropped)}")
    if not parts:
        return "the same combination, once the points above are written into the inventory"
    kept = [f"{key}={value}" for key, value in works.overrides.items()]
    unchanged = f", keeping {', '.join(kept)}" if kept else ""
    return f"{' and '.join(parts)}{unchanged}, the rest as asked"
