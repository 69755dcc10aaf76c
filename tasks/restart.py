"""Every engine started again, in the waves and with the gates of a rollout.

pyinfra inventory/prod.py tasks/restart.py
"""

from pyinfra import local

from sparkfleet.deploy import session

session.intends("restart")
local.include("tasks/roll_out.py")
