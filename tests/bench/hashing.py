"""How fast models are verified from a cold cache, beside sha256sum on all cores over the same files in the same run.

`python -m tests.bench.hashing`, as root. Ends with 1 below LIMIT of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sparknode.base.shape import Node
from sparknode.models import manifest as manifests
from tests.lab.spread.net import document

LIMIT, FILES, ROUNDS = 0.8, 6, 3


def timed(work: Callable[[], object]) -> float:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1")
    began = time.monotonic()
    work()
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256, help="of each file")
    megabytes = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory(prefix="sparkfleet-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        for number in range(FILES):
            (folder / f"{number}.safetensors").write_bytes(os.urandom(megabytes * 1_000_000))
        manifest = manifests.from_node(Node(document(folder, "acme/toy", "a" * 40), "model"))
        listed = "\0".join(str(folder / file.path) for file in manifest.files)
        command = ["xargs", "-0", "-n1", f"-P{os.cpu_count()}", "sha256sum"]

        def theirs() -> None:
            subprocess.run(command, input=listed, text=True, check=True, stdout=subprocess.DEVNULL)

        def ours() -> None:
            assert manifests.problems(manifest, folder) == []

        best = {what: min(timed(work) for _ in range(ROUNDS)) for what, work in (("sha256sum", theirs), ("ours", ours))}
    share = best["sha256sum"] / best["ours"]
    for what, seconds in best.items():
        print(f"{what:11} {FILES * megabytes / seconds:6.0f} MB/s on {os.cpu_count()} cores, best of {ROUNDS}")
    print(f"share       {share:6.2f}")
    return int(share < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
