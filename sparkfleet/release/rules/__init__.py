"""The rules that a recipe must keep: small functions over plain data, their reasons in `catalog/rules.yaml`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkfleet.release.rules import arguments, drafter, image, machine
from sparkfleet.release.rules.book import COMPILED, ORDER, Check, Deployment, Finding, findings, rule_texts

if TYPE_CHECKING:
    from sparkfleet.release.recipe import Recipe

__all__ = ["COMPILED", "Deployment", "Finding", "failures", "judge", "rule_texts"]

CHECKS: tuple[Check, ...] = (
    *(arguments.flags, arguments.of_model, arguments.variables, drafter.speculation),
    *(image.image, image.model, machine.memory, machine.cache, machine.time_limits, machine.reach),
)


def judge(recipe: Recipe, deployment: Deployment) -> list[Finding]:
    """Apply every rule; the failures come first. A profile for another engine is the only thing said."""
    foreign = list(findings(recipe, deployment, [arguments.engine]))
    return foreign or sorted(findings(recipe, deployment, CHECKS), key=lambda finding: ORDER[finding.severity])


def failures(recipe: Recipe, deployment: Deployment) -> list[Finding]:
    return [finding for finding in judge(recipe, deployment) if finding.severity == "fail"]
