"""The rules that a recipe must keep: each a small function over plain data, its reason in `catalog/rules.yaml`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkfleet.rules import arguments, drafter, image, machine
from sparkfleet.rules.book import CHECKS, COMPILED, Deployment, Finding, Severity, findings, rule_texts

if TYPE_CHECKING:
    from sparkfleet.recipe import Recipe

__all__ = ["COMPILED", "Deployment", "Finding", "arguments", "drafter", "failures", "image", "judge", "machine"]
__all__ += ["rule_texts"]

_ORDER: dict[Severity, int] = {"fail": 0, "warn": 1, "info": 2}


def judge(recipe: Recipe, deployment: Deployment) -> list[Finding]:
    """Apply every rule; the failures come first.

    A profile for another engine is the only thing said: judged by this engine's rules, all of it would be wrong.
    """
    foreign = list(findings(recipe, deployment, [CHECKS[("profile-engine",)]]))
    if foreign:
        return foreign
    found = findings(recipe, deployment, CHECKS.values())
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def failures(recipe: Recipe, deployment: Deployment) -> list[Finding]:
    return [finding for finding in judge(recipe, deployment) if finding.severity == "fail"]
