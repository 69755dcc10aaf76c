"""Errors that a person can act on: each says what was found, what was expected and what to do next."""

from __future__ import annotations


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


class CatalogError(FleetError):
    """A catalogue file that cannot be used: names file, key and allowed values."""


class LockError(FleetError):
    """fleet.lock.json is missing, unreadable or does not fit the catalogue."""


class SettingsError(FleetError):
    """A host's inventory data cannot be used."""


class RefusedError(FleetError):
    """A combination that cannot work, with the rules that refuse it."""


def nearest(word: str, known: list[str]) -> str:
    """Return «, did you mean 'x'?» for the nearest known word, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""
