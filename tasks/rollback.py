"""Back to the release that each host was verified with before the newest roll-out, in waves, from what the nodes hold.

pyinfra inventory/prod.py tasks/rollback.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sparkfleet.operations import install_node_program
from tasks.roll_out import roll_out

install_node_program(name="Install sparknode")
roll_out()
