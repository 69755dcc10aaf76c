"""What a gate found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PASS, FAIL, NO_DATA = "pass", "fail", "no-data"


@dataclass(frozen=True)
class GateResult:
    """What one gate measured; `detail` is the sentence for a person.

    `of_host` marks what the host may be guilty of and not the release, `proof` an answer that proves the fault, so that
    asking again can change nothing, and `collapsed` an acceptance that no prompt of a healthy engine has.
    """

    name: str
    figure: float | None
    threshold: float | None
    unit: str
    verdict: str
    detail: str
    of_host: bool = False
    proof: bool = False
    collapsed: bool = False

    @property
    def failed(self) -> bool:
        """No data fails where a floor asks for data."""
        return self.verdict == FAIL or (self.verdict == NO_DATA and self.threshold is not None)

    @property
    def record(self) -> dict[str, Any]:
        return {
            key: value for key, value in asdict(self).items() if key not in {"detail", "of_host", "proof", "collapsed"}
        }

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"
