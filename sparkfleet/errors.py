"""Errors that a person can act on: each says what was found, what was expected and what to do next."""

from __future__ import annotations

from collections.abc import Sequence


class FleetError(Exception):
    """A refusal with its remedy; the command line prints it without a traceback."""

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(self.text())

    def text(self) -> str:
        """Return the message as lines: what was found, what was expected, what to do."""
        lines = [self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.remedy:
            lines.append(f"  next: {self.remedy}")
        return "\n".join(lines)

    def parts(self) -> list[str]:
        """Return the message as texts that make sense alone, so that hosts which share one can be named together."""
        return [self.text()]


class CatalogError(FleetError):
    """A catalogue file that cannot be used: names file, key and allowed values."""


class LockError(FleetError):
    """fleet.lock.json is missing, unreadable or does not fit the catalogue."""


class SettingsError(FleetError):
    """A host's inventory data cannot be used."""


class RefusedError(FleetError):
    """A combination that cannot work, with the rules that refuse it."""

    def __init__(self, found: str, expected: str = "", remedy: str = "", reasons: Sequence[str] = ()) -> None:
        super().__init__("\n".join([found, *reasons]), expected, remedy)
        self.reasons = tuple(reasons)

    def parts(self) -> list[str]:
        remedy = [f"next: {self.remedy}"] if self.remedy else []
        return [self.found.split("\n")[0], *self.reasons, *remedy] if self.reasons else super().parts()


def nearest(word: str, known: list[str]) -> str:
    """Return «, did you mean 'x'?» for the nearest known word, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""
