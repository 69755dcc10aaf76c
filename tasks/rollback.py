"""Back to the release that each host was verified with before the newest rollout, in waves, from what the nodes hold.

pyinfra inventory/prod.py tasks/rollback.py
"""

from pyinfra import local

from sparkfleet.deploy import session

session.intends("rollback")
local.include("tasks/roll_out.py")
