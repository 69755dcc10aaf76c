"""What an operator decided about the findings of a host: its settings, read before any host is asked."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from sparkfleet.catalog.rows import Row
from sparkfleet.errors import nearest


class Waiver(Row):
    """A warning that somebody decided to live with, and until when."""

    reason: str = Field(min_length=1)
    until: datetime.date


Named = TypeVar("Named", list[str], dict[str, Waiver])
Repair = Literal["apt_holds", "cdi_refresh", "cdi_spec", "docker_group", "drop_caches", "earlyoom", "sleep_targets"]


def _checks(given: Named) -> Named:
    if not given:
        return given
    # Here, because most hosts name no check, and planning shall be quick.
    from sparkfleet.preflight.findings import book

    known = list(book().checks)
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"there is no check '{unknown[0]}'{nearest(unknown[0], known)}: one of {', '.join(known)}")
    return given


class Decisions(Row):
    """What a host's operator decided: failures passed over for this run, warnings waived, repairs asked for."""

    force_preflight: Annotated[list[str], AfterValidator(_checks)] = []
    preflight_waivers: Annotated[dict[str, Waiver], AfterValidator(_checks)] = {}
    repairs: list[Repair] = []
