"""Stop, start and prove, one wave at a time; a wave that fails is the last, or as the settings say."""

from pyinfra import host
from pyinfra.api import deploy

from sparkfleet import guard, report
from sparkfleet.operations import activate_release, conclude_wave, install_node_program, take_lease


@deploy("Roll out")
def roll_out() -> None:
    """Activate the staged releases wave by wave; each node goes back by itself when its gates fail."""
    waves = guard.waves()
    if waves:
        take_lease(name="Roll out: take the lease of every host that changes")
    for number, wave in enumerate(host.loop(waves), start=1):
        activate_release(name=f"Wave {number} of {len(waves)}: {', '.join(wave)}", wave=number)
        conclude_wave(name=f"After wave {number} of {len(waves)}", wave=number)
    report.print_at_end()


# Included by rollback.py and restart.py, for which nothing is staged.
if __name__ != "tasks.roll_out":
    install_node_program(name="Install sparknode")
    roll_out()
