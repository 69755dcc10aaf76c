"""Is every host fit for its release? Read-only; run alone it is safe at any hour, also on serving hosts.

pyinfra inventory/prod.py tasks/preflight.py -y
"""

from sparkfleet.deploy import ending, session
from sparkfleet.deploy.actions import refuse_unfit


def preflight(*, alone: bool = False) -> None:
    """Check every host before any is changed; all reasons of all hosts are shown, and one unfit host ends the run."""
    session.require("deploy", "preflight")
    ending.print_findings(alone=alone)
    refuse_unfit()


# pyinfra runs a deploy file without giving it a module's name.
if __name__ != "tasks.preflight":
    session.intends("preflight")
    preflight(alone=True)
