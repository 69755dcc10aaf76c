"""`config` and `validate`: what each setting is on a host and who set it, and whether everything fits together.

Neither connects to anything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from sparkfleet import ROOT, catalog, lock
from sparkfleet.errors import FleetError
from sparkfleet.settings import Settings, parse_settings
from sparkfleet.table import table

Pairs = Callable[[list[str]], dict[str, Any]]


def add_commands(commands: Any, pairs: Pairs) -> None:
    config = commands.add_parser("config", help="print each setting of a host, and where it was set")
    config.add_argument("host", help="a host of the inventory")
    config.add_argument("--inventory", default="inventory/prod.py", help="default: inventory/prod.py")
    config.add_argument("--data", action="append", default=[], metavar="KEY=VALUE", help="as pyinfra's --data")
    config.set_defaults(run=lambda options: _config(options, pairs))

    validate = commands.add_parser("validate", help="catalogue, lock and inventories, held against each other")
    validate.add_argument("inventory", nargs="*", default=["inventory/prod.py"], help="default: inventory/prod.py")
    validate.set_defaults(run=_validate)


def _config(options: argparse.Namespace, pairs: Pairs) -> int:
    from sparkfleet.inventory import find_host, read_inventory

    entry = find_host(read_inventory(options.inventory, pairs(options.data)), options.host)
    settings = parse_settings(entry.name, entry.data).model_dump(mode="json", by_alias=True)
    rows = [(key, json.dumps(value, ensure_ascii=False), entry.origins[key]) for key, value in settings.items()]
    print("\n".join(table(("setting", "value", "set by"), rows)))
    return 0


def _validate(options: argparse.Namespace) -> int:
    """Compile every host. A lock is required only where one exists: the first clone has none yet."""
    from sparkfleet.fleet import plan_host
    from sparkfleet.inventory import read_inventory

    catalog.load()
    problems: dict[str, list[str]] = {}
    entries = [entry for path in options.inventory for entry in read_inventory(path, {})]
    for entry in entries:
        try:
            settings: Settings = parse_settings(entry.name, entry.data)
            if lock.read(settings.lock_path, settings.catalog()) is not None:
                plan_host(entry)
        except FleetError as error:
            problems.setdefault(error.text(), []).append(entry.name)
    for text, names in problems.items():
        print(f"{', '.join(names)}: {text}", file=sys.stderr)
    print(f"{len(entries)} hosts of {', '.join(options.inventory)} in {ROOT.name}: {len(problems)} problems")
    return 2 if problems else 0
