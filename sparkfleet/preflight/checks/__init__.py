"""The checks of the preflight, one a row of `catalog/preflight.yaml`: each looks, and gives figures for its texts.

A check that the facts leave undecided raises, and its row is then reported as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparkfleet.preflight.checks import containers, disk, driver, gpu, machine, memory
from sparkfleet.preflight.checks.view import Check

CHECKS: Mapping[str, Check] = {
    **machine.CHECKS,
    **gpu.CHECKS,
    **driver.CHECKS,
    **containers.CHECKS,
    **memory.CHECKS,
    **disk.CHECKS,
}
