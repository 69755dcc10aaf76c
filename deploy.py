"""From bare hosts to verified servers; the same command adds a node, rolls an image through the fleet, and rolls back.

pyinfra inventory/prod.py deploy.py
"""

from sparkfleet.deploy import session
from sparkfleet.deploy.steps import plan, preflight, repair, roll_out, stage

session.intends("deploy")
plan()
preflight()
repair()
stage()
roll_out()
