"""The fleet that most runs begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plan.harness import PREFIX_TAG, FakeFleet, release_of, serving


@pytest.fixture
def fleet(tmp_path: Path) -> FakeFleet:
    """Four hosts that serve the older release, about to take the current one."""
    found = FakeFleet(tmp_path, [f"spark-{number}" for number in range(1, 5)])
    found.probes = {name: serving(release_of(PREFIX_TAG)) for name in found.hosts}
    return found
