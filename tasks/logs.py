"""What the engines write, each line with its host; followed on a terminal. Read-only, and safe during a rollout.

pyinfra inventory/prod.py tasks/logs.py
"""

from sparkfleet.deploy import look, session

session.intends("look")
look.logs()
