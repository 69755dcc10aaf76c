"""How a lab that stands is told from one that died; needs no root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import remains
from tests.lab.config import LAB_DIR

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100530A:1F86 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4212 1 0 100 0 0 10 0
   1: 0101530A:1F86 0B01530A:C350 01 00000000:00000000 00:00000000 00000000     0        0 4213 1 0 100 0 0 10 0
   2: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4214 1 0 100 0 0 10 0
"""


def test_only_listeners_count() -> None:
    assert remains.listening(TABLE) == {"10.83.0.1", "127.0.0.1"}


@pytest.mark.parametrize(
    ("mounts", "folders"),
    [
        ([], []),
        (["/", "/proc", "/srv/hosts/spark-1/other"], []),
        (["/a/.lab/hosts/spark-1/data", "/a/.lab/hosts/spark-12/root"], ["/a/.lab"]),
        (["/b c/.lab/hosts/spark-1/root", "/a/.lab/hosts/spark-1/root"], ["/a/.lab", "/b c/.lab"]),
        ([f"{LAB_DIR}/hosts/spark-1/data"], []),
    ],
)
def test_a_lab_is_known_by_what_its_hosts_have_mounted(mounts: list[str], folders: list[str]) -> None:
    assert remains.folders_of(mounts) == [Path(folder) for folder in folders]
