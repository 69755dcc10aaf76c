"""Back to the release that each host was verified with before the newest rollout, in waves, from what the nodes hold.

pyinfra inventory/prod.py tasks/rollback.py
"""

from sparkfleet.deploy import session
from sparkfleet.deploy.steps import plan, roll_out

session.intends("rollback")
plan()
roll_out()
