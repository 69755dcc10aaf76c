"""What a deploy would change, and what on a host is not what its release says. Read-only, and safe during a rollout.

pyinfra inventory/prod.py tasks/diff.py
"""

from sparkfleet.deploy import look, session

session.intends("look")
look.diff()
