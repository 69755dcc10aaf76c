"""Is every host fit for its release? Read-only; run alone it is safe at any hour, also on serving hosts.

pyinfra inventory/prod.py tasks/preflight.py -y
"""

from pyinfra.api import deploy

from sparkfleet import report
from sparkfleet.operations import any_unfit, refuse_unfit


@deploy("Preflight")
def preflight(*, alone: bool = False) -> None:
    """Check every host before any is changed; all reasons of all hosts are shown."""
    report.print_findings(alone=alone)
    if any_unfit():
        refuse_unfit(name="Preflight")


# pyinfra runs a deploy file without giving it a module's name.
if __name__ != "tasks.preflight":
    preflight(alone=True)
