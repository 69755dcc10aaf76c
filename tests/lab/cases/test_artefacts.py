"""Weights and images on booted hosts: once over the WAN, whole or absent, and a way back that needs no network."""

from __future__ import annotations

import json
import re

import pytest

from tests.lab import faults, hub_faults, packages
from tests.lab.cases.conftest import make_bare
from tests.lab.cases.reading import (
    AT_ONCE,
    CURRENT_TAG,
    OTHER_TAG,
    PREFIX_TAG,
    STATE,
    Node,
    pyinfra,
    shown,
    sparkfleet,
)
from tests.lab.config import GATEWAY, LAB_DIR, host_named

WEIGHTS = f"{STATE}/models/AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4"


def task(name: str, *arguments: str) -> tuple[int, str]:
    outcome = pyinfra(*arguments, deploy=f"tasks/{name}.py")
    return outcome.code, outcome.output


def listening(node: Node) -> str:
    return node.sudo("ss -Hltn | grep -c ':6891 ' || true").strip()


def test_a_seed_makes_its_own_tool_and_fetches_once_for_all(booted: list[Node]) -> None:
    outcome = sparkfleet("lock", "--inventory", "inventory/lab.py")
    assert outcome.code == 0, outcome.output
    repos = json.loads((LAB_DIR / "fleet.lock.json").read_text())["repos"]
    files = {f"{repo}/{row['commit']}/{file['path']}": file for repo, row in repos.items() for file in row["files"]}
    size = sum(file["size"] for file in files.values())
    seed, *others = booted
    for node in booted:
        make_bare(node)
    seeding = ("--data", "fetch_on=seeds", "--data")

    # An index that does not answer: every seed says so, and no host has a part of a model in place.
    code, output = task("stage", *seeding, f"tool_index=http://{GATEWAY}:9/simple")
    assert code != 0
    assert output.count("the download tool's environment can't be made") >= 2
    assert "set tool_index to a package index that this host reaches" in output
    assert [node.sudo(f"find {STATE}/models -type f 2>/dev/null | wc -l").strip() for node in booted] == ["0"] * 4

    packages.serve()
    for turn in ("made", "found again"):
        before, wheels = hub_faults.bytes_served(), len(packages.taken())
        code, output = task("stage", *seeding, f"tool_index={packages.URL}")
        assert code == 0, output
        assert 0.99 * size <= hub_faults.bytes_served() - before <= 1.05 * size
        pinned = len(re.findall(r"^\w\S*==", packages.REQUIREMENTS.read_text(), re.MULTILINE))
        assert len(packages.taken()) - wheels == (pinned if turn == "made" else 0)
        assert set(packages.taken()) == {seed.address}
        for node in booted:
            for path, file in files.items():
                if file["sha256"]:
                    assert node.sudo(f"sha256sum {STATE}/models/{path}").split()[0] == file["sha256"]
        assert [node.sudo(f"ls {STATE}/tools 2>/dev/null || true") for node in others] == [""] * 3
        # A second time with everything here asks neither the Hub nor the index.
        before, wheels = hub_faults.bytes_served(), len(packages.taken())
        assert task("stage", *seeding, f"tool_index={packages.URL}")[0] == 0
        assert (hub_faults.bytes_served(), len(packages.taken())) == (before, wheels)
        for node in booted:
            node.sudo(f"rm -rf {STATE}/models {STATE}/incoming")
    for node in booted:
        make_bare(node)


@pytest.fixture(scope="module")
def served(booted: list[Node]) -> list[Node]:
    """Four hosts that serve the current tag and have the one before it to go back to."""
    outcome = sparkfleet("lock", "--inventory", "inventory/lab.py")
    assert outcome.code == 0, outcome.output
    for tag in (PREFIX_TAG, CURRENT_TAG):
        outcome = pyinfra("--data", f"image_tag={tag}", "--data", "batch_size=4", "--data", "max_unavailable=4")
        assert outcome.code == 0, outcome.output
    return booted


def test_a_bare_host_takes_from_its_peers_and_nothing_from_the_hub(served: list[Node]) -> None:
    before = hub_faults.bytes_served()
    make_bare(served[3])

    outcome = pyinfra("--limit", served[3].name)

    assert outcome.code == 0, outcome.output
    assert served[3].serves()
    assert hub_faults.bytes_served() == before
    assert [listening(node) for node in served] == ["0"] * len(served)


def test_rolling_back_needs_neither_hub_nor_registry(served: list[Node]) -> None:
    faults.pause_service("hub")
    faults.pause_service("registry")
    try:
        outcome = pyinfra("--data", f"image_tag={PREFIX_TAG}", "--data", "batch_size=4", "--data", "max_unavailable=4")
        assert outcome.code == 0, outcome.output
        assert all(node.serves() for node in served)
    finally:
        faults.resume_service("hub")
        faults.resume_service("registry")
    outcome = pyinfra("--data", "batch_size=4", "--data", "max_unavailable=4")
    assert outcome.code == 0, outcome.output


def test_bit_rot_is_named_by_file_and_mended_from_a_peer(served: list[Node]) -> None:
    file = served[1].sudo(f"ls {WEIGHTS}/*/model.safetensors").strip()
    code, output = task("verify")
    assert code == 0, output
    served[1].sudo(f"printf x | dd of={file} bs=1 seek=5000000 conv=notrunc status=none")
    before = hub_faults.bytes_served()

    code, output = task("verify")
    assert code != 0
    assert "damaged: model.safetensors: sha256 " in output

    outcome = pyinfra("--data", "batch_size=4", "--data", "max_unavailable=4")
    assert outcome.code == 0, outcome.output
    assert task("verify")[0] == 0
    assert hub_faults.bytes_served() == before


def test_an_image_goes_from_host_to_host(served: list[Node]) -> None:
    for node in served[2:]:
        make_bare(node)
        node.sudo("docker image prune --all --force")
        assert node.sudo("docker image ls -q").strip() == ""

    outcome = pyinfra("-v", "--data", "image_distribution=spread", *AT_ONCE)

    assert outcome.code == 0, outcome.output
    assert "that came from another host" in outcome.output
    assert all(node.serves() for node in served)


def test_an_image_that_a_host_has_in_part_runs_and_is_given_to_nobody(served: list[Node]) -> None:
    with_containerd, other = served[2], served[3]
    assert host_named(with_containerd.name).kind.image_store == "containerd"
    assert sparkfleet("lock", "--inventory", "inventory/lab.py", "--data", f"image_tag={OTHER_TAG}").code == 0
    reference = shown(other.name, f"image_tag={OTHER_TAG}")["image"]["reference"]
    ours = ("--limit", with_containerd.name, "--limit", other.name, "--data", f"image_tag={OTHER_TAG}")
    # Its layer stands here unpacked, out of the archive that came before.
    outcome = pyinfra("--limit", with_containerd.name, "--data", f"image_tag={OTHER_TAG}")
    assert outcome.code == 0, outcome.output
    assert with_containerd.serves()
    shows = with_containerd.sudo(f"docker image inspect --format '{{{{.Architecture}}}}' {reference}").strip()

    outcome = pyinfra(*ours, "--data", "image_distribution=spread", *AT_ONCE)

    assert outcome.code == 0, outcome.output
    assert other.serves()
    # A Docker that fetches all of an image (moby/moby pull request 53615) has it whole.
    assert ("can't be given to other hosts" in outcome.output) == (shows == "")
    outcome = pyinfra(*AT_ONCE)
    assert outcome.code == 0, outcome.output


def test_pruning_leaves_what_serves_and_what_it_goes_back_to(served: list[Node]) -> None:
    before = served[0].link("current"), served[0].link("verified"), served[0].link("previous")

    code, output = task("prune", "--data", "keep_releases=0")

    assert code == 0, output
    assert (served[0].link("current"), served[0].link("verified"), served[0].link("previous")) == before
    assert all(node.serves() for node in served)
    code, output = task("prune", "--data", "keep_releases=0")
    assert code == 0, output
    assert "nothing to remove" in output
