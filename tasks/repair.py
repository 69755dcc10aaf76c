"""Repair what the preflight found, as far as the settings ask for it (`repairs` in group_data/all.py).

pyinfra inventory/prod.py tasks/repair.py --dry --diff --data 'repairs=["sleep_targets"]'
"""

from pyinfra.api import deploy

from sparkfleet.deploy import session
from sparkfleet.deploy.operations import repair as repair_one
from sparkfleet.preflight.repairs import REPAIRS


@deploy("Repair")
def repair() -> None:
    """Every host registers each repair that any host asks for, so that pyinfra keeps one order."""
    asked = {name for plan in session.run().hosts.values() for name in plan.settings.repairs}
    for what in [name for name in REPAIRS if name in asked]:
        repair_one(name=f"Repair: {what}", what=what)


# pyinfra runs a deploy file without giving it a module's name.
if __name__ != "tasks.repair":
    session.intends("repair")
    repair()
