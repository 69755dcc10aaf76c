"""How near to the physical limit a model spreads: `python -m tests.bench.spread`, as root.

The least possible time is that of Kumar and Ross (HOTWEB 2006) for the rates that the links are shaped to; beside the
swarm stands the rsync star of the same run. The time is the controller's: from its first question to the hosts until
the last one has all and nobody gives any more. Ends with 1 where a swarm needs more than LIMIT times the bound. The
hosts' folders are in memory: nine of them on one disk would measure that disk, and in a fleet each has its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from sparkfleet.artefacts.spread import Ways, spread
from sparknode.base.shape import Node
from sparknode.models import manifest as manifests
from tests.lab.spread.net import MBIT, network
from tests.lab.spread.world import bound_s, make_model, put, wrong

LIMIT = 1.6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--megabytes", type=float, default=300)
    parser.add_argument("--mbit", type=float, default=96)
    parser.add_argument("--engines", nargs="*", default=["swarm", "rsync"])
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory(prefix="sparkfleet-bench-", dir="/dev/shm") as name:
        source = Path(name) / "model"
        model = make_model(source, int(options.megabytes * 1e6))
        manifest = manifests.from_node(Node(model, "model"))
        size = manifest.total_bytes
        bound = bound_s(size, options.hosts, options.seeds, options.mbit * MBIT)
        print(f"{size / 1e6:.0f} MB to {options.hosts} hosts from {options.seeds} at {options.mbit:.0f} Mbit/s each")
        print(f"bound       {bound:6.1f} s   1.00   load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for engine in options.engines:
            with network(Path(name) / engine, options.hosts + options.seeds, options.mbit) as net:
                givers, takers = net.hosts[: options.seeds], net.hosts[options.seeds :]
                for light in givers:
                    put(light, source, model)
                began = time.monotonic()
                problems = spread(manifest, givers, takers, Ways(distribution=engine, deadline_s=1200), lambda _: None)
                seconds = time.monotonic() - began
                bad = [*problems.values(), *(text for light in takers for text in wrong(light, model))]
                carried = sum(light.received() for light in takers) / size / len(takers)
            ratio = seconds / bound
            missed |= bool(bad) or (engine == "swarm" and ratio > LIMIT)
            print(
                f"{engine:11} {seconds:6.1f} s {ratio:6.2f}   every hash right: {not bad}, {carried:.2f} x its size in"
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
