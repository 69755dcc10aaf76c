"""pyinfra's own settings; pyinfra reads this file from the working folder."""

from pyinfra import config

from sparkfleet import guard

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<4"
config.SUDO = True
# One failed host ends the run at the wave that it is in.
config.FAIL_PERCENT = 0

guard.install()
