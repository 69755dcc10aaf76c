"""Every engine started again, in the waves and with the gates of a roll-out.

pyinfra inventory/prod.py tasks/restart.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sparkfleet.operations import install_node_program
from tasks.roll_out import roll_out

install_node_program(name="Install sparknode")
roll_out()
