"""`python -m sparkfleet`: what needs no connection to a host."""

import sys

from sparkfleet.cli import main

sys.exit(main())
