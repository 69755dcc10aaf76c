"""Docker fails, stops and comes back in each way in which it does: the engine comes back by itself, and nobody is told
that a release was bad.
"""

from __future__ import annotations

from tests.lab import faults
from tests.lab.cases.reading import Node, wait_for

DROP_IN = "/etc/systemd/system/docker.service.d/lab.conf"
BACK_S = 120.0


def engine_is_back(node: Node, before: str) -> None:
    """Another container than before serves, and the unit is up."""
    wait_for(f"the engine of {node.name}", lambda: node.serves() and container_id(node) != before, BACK_S)
    assert node.unit("ActiveState") == {"ActiveState": "active"}


def container_id(node: Node) -> str:
    return str((node.container() or {}).get("Id"))


def test_docker_is_stopped_and_started(node: Node) -> None:
    before = container_id(node)
    node.sudo("systemctl stop docker.socket docker; systemctl start docker.socket docker")
    engine_is_back(node, before)


def test_docker_is_restarted_three_times_in_a_row(node: Node) -> None:
    for _ in range(3):
        before = container_id(node)
        # Docker's own unit allows three starts a minute.
        node.sudo("systemctl reset-failed docker; systemctl restart docker")
        engine_is_back(node, before)


def test_docker_fails_once_at_a_boot(node: Node) -> None:
    once = "[Service]\\nExecStartPre=/bin/sh -c 'test -e /run/lab-docker || { touch /run/lab-docker; exit 1; }'\\n"
    node.sudo(f'mkdir -p $(dirname {DROP_IN}); printf "{once}" > {DROP_IN}')
    before = container_id(node)
    try:
        faults.power_cut(node.name)
        wait_for("the first start of Docker", lambda: "yes" in node.sudo("test -e /run/lab-docker && echo yes || true"))
        engine_is_back(node, before)
    finally:
        node.sudo(f"rm -f {DROP_IN}; systemctl daemon-reload")


def test_docker_can_not_start_containers_for_a_while_after_a_boot(node: Node) -> None:
    """`docker run` ends with 125, as without a CDI specification or with an image that has lost its name."""
    reference = node.release()["image"]["reference"]
    node.sudo(f"docker tag {reference} lab/kept:here && docker rmi --force {reference}")
    before = container_id(node)
    faults.power_cut(node.name)
    wait_for("three starts that fail", lambda: int(node.unit("NRestarts")["NRestarts"] or 0) >= 3, BACK_S)
    assert node.unit("ActiveState")["ActiveState"] != "failed", "no start is the last one"
    node.sudo(f"docker tag lab/kept:here {reference} && docker rmi lab/kept:here")
    engine_is_back(node, before)
