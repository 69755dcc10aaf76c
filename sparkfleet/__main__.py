"""`python -m sparkfleet`: what needs no connection to a host."""

import atexit
import gc
import sys

from sparkfleet.cli.main import main

# Python would look for garbage once more when it leaves, a tenth of a second, in what ends with the process anyway.
atexit.register(gc.freeze)
sys.exit(main())
