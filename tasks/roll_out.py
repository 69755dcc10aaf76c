"""Stop, start and prove, one wave at a time; a wave that fails is the last, or as the settings say."""

from pyinfra.api import deploy

from sparkfleet.deploy import ending, session
from sparkfleet.deploy.operations import install_node_program
from sparkfleet.deploy.operations import roll_out as roll_out_in_waves


@deploy("Roll out")
def roll_out() -> None:
    """Activate the releases wave by wave; each node goes back by itself when its gates fail."""
    waves = session.run().waves
    if waves:
        roll_out_in_waves(name=f"Roll out in {len(waves)} waves" if len(waves) > 1 else "Roll out in one wave")
    ending.print_at_end()


# Included by rollback.py and restart.py, for which nothing is staged.
if __name__ != "tasks.roll_out":
    session.require("rollback", "restart")
    install_node_program(name="Install sparknode")
    roll_out()
