"""What was activated where, by whom, and how it ended. Read-only, and safe during a rollout.

pyinfra inventory/prod.py tasks/history.py
"""

from sparkfleet.deploy import look, session

session.intends("look")
look.history()
