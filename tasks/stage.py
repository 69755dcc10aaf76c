"""Everything that does not touch the running service, on all hosts in parallel; a later deploy has only to activate.

pyinfra inventory/prod.py tasks/stage.py
"""

from sparkfleet.deploy import session
from sparkfleet.deploy.steps import stage

session.intends("stage")
stage()
