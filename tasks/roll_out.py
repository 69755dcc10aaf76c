"""Stop, start and prove, one wave at a time; the first wave with a failed host is the last."""

from pyinfra import host
from pyinfra.api import deploy

from sparkfleet import guard, report
from sparkfleet.operations import activate_release


@deploy("Roll out")
def roll_out() -> None:
    """Activate the staged releases wave by wave; each node goes back by itself when its gates fail."""
    waves = guard.run().waves
    for number, wave in enumerate(host.loop(waves), start=1):
        activate_release(name=f"Wave {number} of {len(waves)}: {', '.join(wave)}", wave=wave)
    report.print_table_at_end()
