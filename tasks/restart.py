"""Every engine started again, in the waves and with the gates of a rollout.

pyinfra inventory/prod.py tasks/restart.py
"""

from sparkfleet.deploy import session
from sparkfleet.deploy.steps import plan, roll_out

session.intends("restart")
plan()
roll_out()
