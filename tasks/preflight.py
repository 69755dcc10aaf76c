"""Is every host fit for its release? Read-only; run alone it is safe at any hour, also on serving hosts.

pyinfra inventory/prod.py tasks/preflight.py -y
"""

from pyinfra.api import deploy

from sparkfleet.operations import refuse_unfit


@deploy("Preflight")
def preflight() -> None:
    """Check every host before any is changed; all reasons of all hosts are shown."""
    refuse_unfit(name="Preflight")


# pyinfra runs a deploy file without giving it a module's name.
if __name__ != "tasks.preflight":
    preflight()
