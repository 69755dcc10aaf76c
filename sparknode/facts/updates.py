"""Pure readers of what a system says of its firmware and of NVIDIA's updates; none of them raises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sparknode.base.parse import as_dict, as_list, as_text, json_object, number
from sparknode.facts.facts import Ota

# fwupd's ids of the firmware of a GB10, whose devices share a name: GUID (NVIDIA's update recipes), and AppstreamId,
# which other makers' firmware on LVFS has too.
_FIRMWARE = (
    ("SoC firmware", {"b488217b-3895-4fc0-b1bf-ab7005a2d45a"}, re.compile(r"soc-?fw|[._-]soc[._-]")),
    (
        "Embedded Controller",
        {"3d13c989-e6a8-4ead-95ee-921f09868f65", "1a2b3c4d-5e6f-7a8b-9cad-becfd1e2f304"},
        re.compile(r"[._-]ec[._-]"),
    ),
    ("USB-PD", {"dd1a238a-5f8e-46bd-9401-a88da99c5a96"}, re.compile(r"usb-?pd|[._-]pd[._-]")),
)


def _devices(text: str) -> list[dict[str, Any]] | None:
    found = json_object(text).get("Devices")
    return [as_dict(device) for device in found] if isinstance(found, list) else None


def _guids(device: dict[str, Any]) -> set[str]:
    return {guid.lower() for guid in as_list(device.get("Guid")) if isinstance(guid, str)}


def firmware_guids(text: str) -> set[str]:
    """The GUIDs of fwupd's devices: each names a kind of device, and never a single one."""
    return {guid for device in _devices(text) or [] for guid in _guids(device)}


def firmware(text: str) -> dict[str, str] | None:
    """`fwupdmgr get-devices --json`: the version of each device that has one, by what it is or else by its name."""
    devices = _devices(text)
    if devices is None:
        return None
    found: dict[str, list[str]] = {}
    for device in devices:
        version = as_text(device.get("Version"))
        streams = " ".join(str(as_dict(release).get("AppstreamId")) for release in as_list(device.get("Releases")))
        known = (name for name, guids, ids in _FIRMWARE if guids & _guids(device) or ids.search(streams.lower()))
        name = next(known, None) or as_text(device.get("Name"))
        if name and version:
            found.setdefault(name, []).append(version)
    # Twins that nothing tells apart are counted by version, as fwupd lists them in any order.
    return {
        f"{name} #{number}" if number > 1 else name: version
        for name, versions in found.items()
        for number, version in enumerate(sorted(versions), 1)
    }


def ota(text: str) -> Ota | None:
    """`nvidia-spark-ota-check`, its summary or its torn-score: which update, how torn it is, and which parts lack.

    `failed` is None where only the score is told.
    """
    found: dict[str, Any] = {}
    for document in _documents(text):
        found.update(document)
    name = as_text(found.get("detected_ota")) or as_text(found.get("name"))
    scores = [as_dict(score) for score in as_list(found.get("scores"))]
    mine = next((score for score in scores if score.get("ota") == name), {})
    torn = next(
        (figure for figure in (_figure(found.get("torn")), _figure(mine.get("torn"))) if figure is not None), None
    )
    failed = mine.get("failed", found.get("failed"))
    if torn is None:
        line = re.search(
            r"^[ \t]*torn(?:[ _-]?score)?[ \t]*[:=]?[ \t]*(\d[\d.]{0,12})[ \t]*%?[ \t]*$", text, re.M | re.I
        )
        named = re.search(r"^[ \t]*(?:detected[_ ]ota|name)[ \t]*[:=]?[ \t]*(\S{1,40})[ \t]*$", text, re.M | re.I)
        torn, name = number(line[1]) if line else None, name or (named[1] if named else None)
    if torn is None:
        return None
    return Ota(name, torn, tuple(map(str, failed)) if isinstance(failed, list) else None)


def _figure(value: object) -> float | None:
    return None if isinstance(value, bool) else number(str(value))


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, whatever stands around them; at most a few, as each try reads to its end."""
    decoder, at = json.JSONDecoder(), text.find("{")
    for _ in range(8):
        if at < 0:
            return
        try:
            document, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            document, end = None, at + 1
        yield as_dict(document)
        at = text.find("{", end)
