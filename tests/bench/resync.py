"""What a second sync of unchanged weights and images costs: `make bench-resync`, as root.

`tasks/stage.py` over light hosts that have everything, beside connecting to the same hosts and running `true`; the
difference is the sync's. That it is one round trip to each host is tests/plan/test_sync.py's. Ends with 1 above LIMIT.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.bench.converge import PYINFRA, write_inventory
from tests.bench.lighthosts import light_hosts
from tests.bench.measure import interleaved
from tests.bench.snapshot import converged
from tests.lab.config import ROOT

HOSTS, ROUNDS, LIMIT = 8, 5, 0.3


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bench-resync-") as name:
        folder = Path(name)
        with converged(folder) as (snapshot, lock), light_hosts(HOSTS, snapshot) as (hosts, ssh):
            inventory = str(write_inventory(folder, lock, hosts, ssh))
            commands = {
                "connect": [PYINFRA, inventory, "exec", "--", "true"],
                "sync": [PYINFRA, inventory, "tasks/stage.py", "-y", "--chdir", str(ROOT)],
            }
            series = interleaved(commands, ROUNDS, folder, PYINFRA_PROGRESS="off")
    for what, one in series.items():
        print(f"{what:8} {one.cells()}; {median(one.wall) / HOSTS:.2f} s for each of {HOSTS} hosts")
    pairs = zip(series["sync"].wall, series["connect"].wall, strict=True)
    cost = median(sync - connect for sync, connect in pairs) / HOSTS
    print(f"unchanged weights and image cost {cost:.2f} s a host (limit {LIMIT})")
    return int(cost > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
