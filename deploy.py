"""From bare hosts to verified servers; the same command adds a node, rolls an image through the fleet, and rolls back.

pyinfra inventory/prod.py deploy.py
"""

import sys
from pathlib import Path

# pyinfra puts the working folder last on the path, where an installed package named `tasks` would win.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from sparkfleet.deploy import session
from tasks.preflight import preflight
from tasks.repair import repair
from tasks.roll_out import roll_out
from tasks.stage import stage

# Plans the run and prints the plan; what cannot work was refused before a connection.
session.intends("deploy")
preflight()
repair()
stage()
roll_out()
