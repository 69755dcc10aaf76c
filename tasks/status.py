"""What every host serves and how well, odd ones first. Read-only, and safe during a rollout.

pyinfra inventory/prod.py tasks/status.py
"""

from sparkfleet.deploy import look, session

session.intends("look")
look.status()
