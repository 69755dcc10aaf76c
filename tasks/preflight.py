"""Is every host fit for its release? Read-only; run alone it is safe at any hour, also on serving hosts.

pyinfra inventory/prod.py tasks/preflight.py -y
"""

from sparkfleet.deploy import session
from sparkfleet.deploy.steps import preflight

session.intends("preflight")
preflight(alone=True)
