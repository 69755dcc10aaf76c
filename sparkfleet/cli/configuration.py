"""`config` and `validate`: what each setting is on a host and who set it, and whether everything fits together.

Neither connects to anything.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

from sparkfleet import ROOT, grouping
from sparkfleet.catalog import catalog
from sparkfleet.errors import FleetError
from sparkfleet.inventory.settings import Settings, parse_settings
from sparkfleet.release import lockfile
from sparkfleet.release.release import compile_release
from sparkfleet.release.rules import judge
from sparkfleet.text import table


def add_commands(commands: Any) -> None:
    config = commands.add_parser("config", help="print each setting of a host, and where it was set")
    config.add_argument("host", help="a host of the inventory")
    config.add_argument("--inventory", default="inventory/prod.py", help="default: inventory/prod.py")
    config.add_argument("--data", action="append", default=[], metavar="KEY=VALUE", help="as pyinfra's --data")
    config.set_defaults(run=_config)

    validate = commands.add_parser("validate", help="check catalogue, lock and inventories against each other")
    validate.add_argument("inventory", nargs="*", default=["inventory/prod.py"], help="default: inventory/prod.py")
    validate.set_defaults(run=_validate)


def _config(options: argparse.Namespace) -> int:
    from sparkfleet.inventory.inventory import find_host, read_inventory

    entry = find_host(read_inventory(options.inventory, options.data), options.host)
    settings = parse_settings(entry.name, entry.data)
    rows = [
        (key, json.dumps(value, ensure_ascii=False), "default" if _is_default(settings, key) else entry.origins[key])
        for key, value in settings.model_dump(mode="json", by_alias=True).items()
    ]
    print("\n".join(table(("setting", "value", "set by"), rows)))
    return 0


def _is_default(settings: Settings, key: str) -> bool:
    """Whether a value is the schema's own: group_data/all.py repeats each default, and nobody chose those."""
    field = Settings.model_fields[key]
    return not field.is_required() and getattr(settings, key) == field.get_default(call_default_factory=True)


def _validate(options: argparse.Namespace) -> int:
    """Compile every host; what only the first deploy needs (a lock, decisions) is listed and is no problem yet."""
    from sparkfleet.inventory.inventory import read_inventory

    catalog.load()
    problems: dict[str, list[str]] = {}
    undecided: dict[str, list[str]] = {}
    entries = [entry for path in options.inventory for entry in read_inventory(path)]
    if not entries:
        problems["no host is in it\n  next: put (name, data) pairs into a list, as inventory/prod.py does"] = [
            "inventory"
        ]
    for entry in entries:
        try:
            settings = parse_settings(entry.name, entry.data)
            missing = _missing_for_a_deploy(settings)
        except FleetError as error:
            problems.setdefault(error.text(), []).append(entry.name)
            continue
        for text in missing:
            undecided.setdefault(text, []).append(entry.name)
    for kind, found in (("problem", problems), ("before the first deploy", undecided)):
        for text, names in found.items():
            print(f"{kind}: {grouping.whom(names, len(entries))}: {text}", file=sys.stderr)
    more = f", and {len(undecided)} to settle before the first deploy" if undecided else ""
    print(f"{len(entries)} hosts of {', '.join(options.inventory)} in {ROOT.name}: {len(problems)} problems{more}")
    return 2 if problems else 0


def _missing_for_a_deploy(settings: Settings) -> list[str]:
    """Return what a deploy would refuse of a host that can be compiled. Raises FleetError where it cannot be."""
    known = settings.catalog()
    trial = replace(settings.deployment, trial=True)
    locked = lockfile.read(settings.lock_path, known)
    compiled = compile_release(known, locked, settings.choice, trial, settings.gpu_injection, settings.operation)
    found = judge(compiled.recipe, replace(settings.deployment, image_locked=True))
    decisions = [finding.text() for finding in found if finding.severity == "fail"]
    names = ", ".join(compiled.unlocked)
    pins = f"{settings.lock_file} has no digest or commit for {names}\n  next: run `python -m sparkfleet lock`"
    return decisions + ([pins] if names else [])
