"""Entry point of `python3 -m sparknode` and of the zipapp."""

import sys

from sparknode.cli import main

sys.exit(main(sys.argv[1:]))
