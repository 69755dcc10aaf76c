"""The lab's hosts and their kinds: whatever a tier boots has them mixed."""

from __future__ import annotations

import pytest

from tests.lab.config import KINDS, MAX_HOSTS, Host
from tests.lab.hosts import docker_settings


def test_any_hosts_in_a_row_have_every_kind() -> None:
    for first in range(1, MAX_HOSTS - len(KINDS) + 2):
        assert {Host(first + step).kind for step in range(len(KINDS))} == set(KINDS)


@pytest.mark.parametrize(
    ("injection", "store", "features"),
    [
        ("hook", "graphdriver", None),
        ("cdi", "graphdriver", {"cdi": True}),
        ("cdi", "containerd", {"cdi": True, "containerd-snapshotter": True}),
    ],
)
def test_a_kind_is_what_its_docker_is_set_to(injection: str, store: str, features: dict[str, bool] | None) -> None:
    (host,) = [
        host
        for host in (Host(number) for number in range(1, len(KINDS) + 1))
        if (host.kind.gpu_injection, host.kind.image_store) == (injection, store)
    ]
    assert docker_settings(host).get("features") == features
