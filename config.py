"""pyinfra's own settings; pyinfra reads this file from the working folder."""

import atexit
import gc

from pyinfra import config
from pyinfra.api import state

# What is imported and read from here on lives until the end; looking for garbage in it would find none, neither on the
# way nor when Python leaves, which otherwise takes a fifth of a second.
gc.set_threshold(100_000)
atexit.register(gc.freeze)

from sparkfleet.deploy import session  # noqa: E402
from sparkfleet.node import files_open  # noqa: E402

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<4"
config.SUDO = True
# One failed host ends the run at the step that it is in.
config.FAIL_PERCENT = 0
# Every host at once, as far as the limit of open files allows: by itself pyinfra takes 20 a core and waits for them.
state.MAX_PARALLEL = config.PARALLEL = files_open.raise_limit()

session.begin()
