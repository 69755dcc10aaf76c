"""What a rule is: an id, a check over plain data, and its reason, source and remedy in `catalog/rules.yaml`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparkfleet import ROOT
from sparkfleet.catalog.catalog import read_file
from sparkfleet.catalog.rows import Row
from sparkfleet.errors import SettingsError

if TYPE_CHECKING:
    from sparkfleet.release.recipe import Recipe

Severity = Literal["fail", "warn", "info"]
ORDER: dict[Severity, int] = {"fail": 0, "warn": 1, "info": 2}
# The rule, what was found, what was expected.
Problem = tuple[str, str, str]
Check = Callable[["Recipe", "Deployment"], Iterator[Problem]]
RULES_FILE = ROOT / "catalog" / "rules.yaml"
# Rules that the recipe compiler itself keeps, because without them there is no recipe to check.
COMPILED = (
    *("catalogue-id", "image-latest", "image-unknown", "override-drafter", "override-unknown", "override-value"),
    *("argument-name", "reserved-argument", "secret-argument"),
)


class RuleText(Row):
    severity: Severity
    why: str
    source: str
    remedy: str
    # Looking at a release is allowed before it may be deployed: `show` turns these failures into warnings.
    warn_when_showing: bool = False


class Rules(Row):
    """catalog/rules.yaml."""

    schema_: int = Field(alias="schema")
    rules: dict[str, RuleText]


@dataclass(frozen=True)
class Deployment:
    """What the host's owner has written down, as far as rules ask for it; `trial` is a look without a deploy."""

    api_key_file: str | None = None
    allow_unauthenticated: str | None = None
    terms_accepted: bool = False
    trial: bool = False
    image_locked: bool = False
    # Repositories whose content nobody has held against the catalogue's row.
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What is said of a recipe, by a rule, or of a host, by a check of the preflight."""

    id: str
    severity: Severity
    found: str
    expected: str
    why: str
    source: str
    remedy: tuple[str, ...]
    maintenance: bool = False

    def text(self) -> str:
        lines = [f"{self.id}: {self.found}"]
        lines += [f"  expected: {self.expected}"] if self.expected else []
        lines.append(f"  why: {self.why} [{self.source}]")
        when = "in a maintenance window, by hand" if self.maintenance else "next"
        return "\n".join([*lines, *(f"  {when}: {step}" for step in self.remedy)])


@cache
def rule_texts() -> dict[str, RuleText]:
    """Return reason, source and remedy of every rule; raises CatalogError naming the row that cannot be used."""
    return read_file(RULES_FILE, Rules).rules


def findings(recipe: Recipe, deployment: Deployment, checks: Iterable[Check]) -> Iterator[Finding]:
    for check in checks:
        for rule_id, found, expected in check(recipe, deployment):
            text = rule_texts()[rule_id]
            severity = "warn" if deployment.trial and text.warn_when_showing else text.severity
            yield Finding(rule_id, severity, found, expected, text.why, text.source, (text.remedy,))


def refusal(rule_id: str, found: str, expected: str) -> SettingsError:
    """Return the error for a choice that cannot even be compiled, with the rule's reason and remedy."""
    text = rule_texts()[rule_id]
    return SettingsError(f"{rule_id}: {found}", f"{expected}\n  why: {text.why} [{text.source}]", text.remedy)
