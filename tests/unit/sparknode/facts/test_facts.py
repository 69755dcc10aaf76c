"""The document of a probe at the border: what was written is read, and what does not fit is named by its key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sparknode.base.shape import written
from sparknode.errors import Refused
from sparknode.facts.facts import Facts, Ota, Unit
from sparknode.host.owners import Owner
from tests.bundles import FIXTURES, document

# What the first version of this schema wrote. It stays as it is: later versions read it too.
FIRST: dict[str, Any] = json.loads((FIXTURES / "probe.json").read_text())


def keys(value: Any, *above: Any) -> Iterator[tuple[Any, ...]]:
    """Where each key of the schema stands; names of units and devices are the host's."""
    if isinstance(value, list):
        value = dict(enumerate(value[:1]))
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key != "fleet":
            if not isinstance(key, int) and above[-1:] not in (("units",), ("firmware",)):
                yield (*above, key)
            yield from keys(inner, *above, key)


KEYS = list(keys(FIRST))
# These have a default.
LEFT_OUT = {"temperature_c", "power_w", "clock_mhz", "utilization", "memory_total_mib", "memory_free_mib"}
LEFT_OUT |= {"LoadState", "ActiveState", "UnitFileState", "why", "unit", "uid"}


def changed(where: tuple[Any, ...], *values: Any) -> dict[str, Any]:
    """The first version's document with another value there, or without that key."""
    found: dict[str, Any] = json.loads(json.dumps(FIRST))
    inner: Any = found
    for key in where[:-1]:
        inner = inner[key]
    inner.pop(where[-1], None)
    for value in values:
        inner[where[-1]] = value
    return found


def value_of(where: tuple[Any, ...]) -> Any:
    value: Any = FIRST
    for key in where:
        value = value[key]
    return value


def test_what_the_first_version_wrote_is_read() -> None:
    facts = Facts.read(FIRST)
    assert facts.docker.rootless_uids == (0,)
    assert facts.gpu.tenants[0].owner == Owner("user-unit", "x.service", 1000)
    assert facts.docker.containers[0].gpu == "runtime"
    assert facts.host.ota == Ota("A", 1.0, ("kernel",))
    assert facts.unit("docker.service") == Unit("loaded", "active", "enabled")
    assert facts.unit("nothing.service") == Unit()
    assert facts.unreadable[0].what == "clock"
    assert facts.fleet.lease is not None
    assert facts.fleet.lease.source == "10.0.0.1"


def test_every_list_in_it_has_an_entry() -> None:
    empty = [where for where in KEYS if value_of(where) in ([], {})]
    # Texts alone, of which any other list has some.
    assert empty == [("host", "desktop"), ("gpu", "kernel_log"), ("docker", "cdi_dirs")]


def test_what_was_read_is_written_with_every_key() -> None:
    again = json.loads(json.dumps(written(Facts.read(FIRST))))
    assert Facts.read(again) == Facts.read(FIRST)
    assert set(KEYS) <= set(keys(again))


@pytest.mark.parametrize("where", KEYS, ids=lambda where: ".".join(map(str, where)))
def test_a_key_that_is_missing_or_of_another_type_is_named(where: tuple[Any, ...]) -> None:
    name = str(where[-1])
    with pytest.raises(Refused, match=rf"{name}.*: found "):
        Facts.read(changed(where, {"another": ["type"]}))
    if name in LEFT_OUT or where[-3:] == ("containers", 0, "name"):
        Facts.read(changed(where))
    else:
        with pytest.raises(Refused, match=f"{name}: found nothing"):
            Facts.read(changed(where))


def test_what_a_newer_program_adds_is_left_alone() -> None:
    assert Facts.read({**FIRST, "new": 1, "tools": {**FIRST["tools"], "new": True}}) == Facts.read(FIRST)


def test_the_status_in_it_is_read_as_that_of_a_status_is() -> None:
    facts = Facts.read(document(activation={"state": "probing", "operator": ""}, current=""))
    assert facts.fleet.activation is not None
    assert (facts.fleet.activation.operator, facts.fleet.current) == (None, None)
    with pytest.raises(Refused, match=r"probe\.fleet\.lease: found 7"):
        Facts.read(document(lease=7))
