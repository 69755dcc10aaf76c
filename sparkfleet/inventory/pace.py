"""How fast a run may go, and how much it may take out of service at once."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from sparkfleet.catalog.rows import Row

# A number of hosts, or a share of the run's hosts: "25%".
Share = int | str
_PERCENT = re.compile(r"(100|[1-9]?[0-9])%")


def _share(value: object, least: int = 1) -> object:
    """A number of hosts or a share of them, refused in words that name both."""
    number = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if number or (isinstance(value, str) and _PERCENT.fullmatch(value)):
        return value
    raise ValueError(f'expected a number of hosts from {least} up, or a share of them such as "25%"')


def _ramp(value: object) -> object:
    steps = value if isinstance(value, list | tuple) else [value]
    if not steps:
        raise ValueError('expected at least one step, such as [1, "25%", "100%"]')
    return tuple(_share(step) for step in steps)


Hosts = Annotated[Share, BeforeValidator(_share)]
HostsOrNone = Annotated[Share, BeforeValidator(partial(_share, least=0))]
Ramp = Annotated[tuple[Share, ...], BeforeValidator(_ramp)]


class Pace(Row):
    """How a run goes about it; one for all hosts of a run."""

    batch_size: Ramp = (1, "10%", "25%")
    max_unavailable: Hosts = "25%"
    max_failures: int = Field(default=0, ge=0)
    pause_between_waves_s: float = Field(default=0, ge=0)
    on_failure: Literal["halt", "revert_all"] = "halt"
    min_serving: HostsOrNone = 0
    unhealthy_first: bool = True
    judge_canary: bool = True
    lease_ttl_s: int = Field(default=60, ge=15, le=3600)
    runs_dir: str = ".sparkfleet/runs"
    hooks_dir: str = "hooks"

    def differs_from(self, other: Pace) -> str | None:
        return next((name for name in Pace.model_fields if getattr(self, name) != getattr(other, name)), None)
