"""pyinfra's own settings; pyinfra reads this file from the working folder."""

from pyinfra import config
from pyinfra.api.state import MAX_PARALLEL

from sparkfleet import guard

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<4"
config.SUDO = True
# One failed host ends the run at the wave that it is in.
config.FAIL_PERCENT = 0
# Every host at once, as far as the limit of open files allows: by itself pyinfra takes 20 a core and waits for them.
config.PARALLEL = MAX_PARALLEL

guard.install()
