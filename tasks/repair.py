"""Repair what the preflight found, as far as the settings ask for it (`repairs` in group_data/all.py).

pyinfra inventory/prod.py tasks/repair.py --dry --diff --data 'repairs=["sleep_targets"]'
"""

from sparkfleet.deploy import session
from sparkfleet.deploy.steps import repair

session.intends("repair")
repair()
