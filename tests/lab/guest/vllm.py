#!/usr/bin/python3
# Simulated by the sparkfleet lab; the image lays its modules and recordings out as the repository does.
from __future__ import annotations

import os
import sys

sys.path.insert(0, "/usr/lib/sparkfleet-lab")

from tests.lab.engine.main import main

status = main(sys.argv[1:])
sys.stdout.flush()
# Request threads may still wait for clients that will never read; the process ends without them.
os._exit(status)
