"""From bare hosts to verified servers, and what a second run, an upgrade and a rollback do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab import hub_faults
from tests.lab.cases.conftest import lab, make_bare, nodes_of_the_lab
from tests.lab.cases.reading import AT_ONCE, CURRENT_TAG, PREFIX_TAG, STATE, Node, Outcome, printed, pyinfra, shown
from tests.lab.config import LAB_DIR


@pytest.fixture(scope="module")
def sent_before(locked: list[Node]) -> int:  # noqa: ARG001
    """What the hub had sent before the deploy: other modules fetch, too."""
    return hub_faults.bytes_served()


@pytest.fixture(scope="module")
def deployed(locked: list[Node], sent_before: int) -> Outcome:  # noqa: ARG001
    for node in locked:
        make_bare(node)
    return pyinfra()


def test_bare_hosts_become_servers(deployed: Outcome, nodes: list[Node]) -> None:
    assert deployed.code == 0, deployed.output
    for node in nodes:
        assert node.serves(), node.name
        assert node.link("current") == node.link("verified") == shown(node.name)["id"]
        assert node.journal()[-1]["state"] == "committed"


def configuration(node: Node, image: str) -> set[str]:
    """The image's own id, and that of its configuration: where it was loaded from a file, only the latter is known."""
    blobs = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256"
    text = node.sudo(f"cat {blobs}/{image.removeprefix('sha256:')} 2>/dev/null || true")
    found = json.loads(text) if text else {}
    inner = [configuration(node, one["digest"]) for one in found.get("manifests", [])]
    return {image}.union(*inner, {found["config"]["digest"]} if "config" in found else ())


def test_every_host_runs_what_show_printed(deployed: Outcome, nodes: list[Node]) -> None:
    assert deployed.code == 0, deployed.output
    for node in nodes:
        release, container = shown(node.name), node.container()
        assert container is not None
        wanted = release["container"]
        assert [container["Path"], *container["Args"]] == [wanted["entrypoint"], *wanted["args"]]
        assert {f"{k}={v}" for k, v in wanted["env"].items()} <= set(container["Config"]["Env"])
        assert configuration(node, container["Image"]) & set(release["image"]["image_ids"])
        mounts = {(m["Source"], m["Destination"], not m["RW"]) for m in container["Mounts"]}
        assert mounts == {(m["source"], m["target"], m["read_only"]) for m in wanted["mounts"]}
        assert container["HostConfig"]["NetworkMode"] == container["HostConfig"]["IpcMode"] == "host"
        assert container["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
        assert container["HostConfig"]["DeviceRequests"], "the GPU is injected"


def test_the_unit_is_right_as_systemd_reads_it(deployed: Outcome, nodes: list[Node]) -> None:
    assert deployed.code == 0, deployed.output
    for node in nodes:
        unit = node.unit("Restart", "StartLimitIntervalUSec", "UnitFileState", "NeedDaemonReload")
        assert unit["Restart"] == "always"
        assert unit["StartLimitIntervalUSec"] == "0"
        assert unit["UnitFileState"] == "enabled"
        assert unit["NeedDaemonReload"] == "no"
        assert node.unit("UnitFileState", unit="sparkfleet-activate.service")["UnitFileState"] == "enabled"
        main_pid = node.unit("MainPID")["MainPID"]
        argv = node.sudo(f"cat /proc/{main_pid}/cmdline").rstrip("\0").split("\0")
        assert argv[1:] == json.loads(printed(node.name, "argv"))[1:]


def test_weights_are_read_only_and_the_seed_was_asked_once(
    deployed: Outcome, sent_before: int, nodes: list[Node]
) -> None:
    assert deployed.code == 0, deployed.output
    sizes = set()
    for node in nodes:
        assert node.sudo(f"find {STATE}/models -type f -perm /222 ! -name '*.verified.json'").strip() == ""
        assert node.sudo(f"find {STATE}/incoming -type f 2>/dev/null || true").strip() == ""
        listed = node.sudo(f"find {STATE}/models -type f ! -name '*.verified.json' -printf '%s\\n'")
        sizes.add(sum(int(size) for size in listed.split()))
    assert len(sizes) == 1
    assert hub_faults.bytes_served() - sent_before <= 1.05 * sizes.pop(), "weights crossed the WAN once"


def test_a_second_run_changes_nothing(deployed: Outcome, nodes: list[Node]) -> None:
    assert deployed.code == 0, deployed.output
    before = [node.files() for node in nodes]
    started = [(node.container() or {})["State"]["StartedAt"] for node in nodes]
    again = pyinfra()
    assert again.code == 0, again.output
    assert [(node.container() or {})["State"]["StartedAt"] for node in nodes] == started
    assert [node.files() for node in nodes] == before
    assert "nothing to do: every host serves what it should, verified" in again.output


def test_roll_back_and_forward_render_what_each_image_needs(deployed: Outcome, nodes: list[Node]) -> None:
    assert deployed.code == 0, deployed.output
    for tag, backend, caching in (
        (PREFIX_TAG, "flex_attention", "--no-enable-prefix-caching"),
        (CURRENT_TAG, "flash_attn", "--enable-prefix-caching"),
    ):
        outcome = pyinfra("--data", f"image_tag={tag}", *AT_ONCE)
        assert outcome.code == 0, outcome.output
        for node in nodes:
            container = node.container()
            assert container is not None
            arguments = container["Args"]
            speculative = json.loads(arguments[arguments.index("--speculative-config") + 1])
            assert speculative["attention_backend"] == backend
            assert caching in arguments
            assert node.serves()
            assert node.link("current") == node.link("verified") == shown(node.name, f"image_tag={tag}")["id"]


@pytest.fixture
def fifth(nodes: list[Node]) -> Iterator[Node]:
    """One more host; other tests count four, so it leaves the inventory again, and goes with the lab."""
    state = LAB_DIR / "state.json"
    before = state.read_text()
    lab("up", "--nodes", str(len(nodes) + 1))
    yield nodes_of_the_lab()[-1]
    state.write_text(before)


def test_a_new_node_is_added_alone(deployed: Outcome, nodes: list[Node], fifth: Node) -> None:
    assert deployed.code == 0, deployed.output
    started = [(node.container() or {})["State"]["StartedAt"] for node in nodes]
    outcome = pyinfra("--limit", fifth.name)
    assert outcome.code == 0, outcome.output
    assert fifth.serves()
    assert [(node.container() or {})["State"]["StartedAt"] for node in nodes] == started


def test_a_typo_in_the_limit_is_no_success(nodes: list[Node]) -> None:
    outcome = pyinfra("--limit", "sparc-1")
    assert outcome.code == 2
    assert "no host matches" in outcome.output
    assert nodes[0].name in outcome.output
