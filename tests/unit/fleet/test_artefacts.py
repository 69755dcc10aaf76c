"""What a node is told to prove of a drafter depends on how it drafts."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from sparkfleet import ROOT, artefacts
from sparkfleet.artefacts import drafter_checks
from sparkfleet.catalog import load
from sparkfleet.errors import FleetError

LAB = ROOT / "tests" / "lab" / "catalog"


def test_a_dflash_drafter_names_the_layers_of_its_target() -> None:
    drafter = load().models["gemma4-26b-a4b-nvfp4"].drafter
    assert drafter
    checks = drafter_checks(drafter)
    assert checks["target_layer_ids"] == [1, 6, 11, 17, 22, 27]
    assert checks["block_size"] == 16


def test_a_drafter_that_is_a_small_model_names_none() -> None:
    drafter = load((LAB,)).models["lab-spelling"].drafter
    assert drafter
    assert drafter_checks(drafter) == {}


@pytest.mark.parametrize(
    ("data", "has"),
    [
        ({}, ["spark-1:/there/"]),
        ({"ssh_hostname": "10.0.0.7", "ssh_user": "ann"}, ["ann@10.0.0.7:/there/"]),
        ({"ssh_hostname": "fe80::1", "ssh_user": "ann"}, ["ann@[fe80::1]:/there/"]),
        ({"ssh_key": "/my keys/id"}, ["-i", "/my keys/id", "IdentitiesOnly=yes"]),
        ({"ssh_config_file": "~/.ssh/my config"}, ["-F", "~/.ssh/my config"]),
        ({"ssh_port": 2222}, ["-p", "2222"]),
        ({"ssh_known_hosts_file": "in ventory/known"}, ['UserKnownHostsFile="in ventory/known"']),
        ({"ssh_strict_host_key_checking": "yes"}, ["StrictHostKeyChecking=yes"]),
    ],
)
def test_rsync_reaches_a_host_as_pyinfra_does(data: dict[str, Any], has: list[str]) -> None:
    argv = artefacts.rsync_argv("spark-1", data, "/here/", "/there/")
    words = [*argv, *shlex.split(argv[argv.index("--rsh") + 1])]
    assert [word for word in has if word not in words] == []


@pytest.mark.parametrize("key", ["ssh_password", "ssh_key_password"])
def test_a_login_that_rsync_cannot_make_is_refused_before_anything_is_fetched(key: str) -> None:
    with pytest.raises(FleetError, match=key) as refused:
        artefacts.require_sending("spark-1", {key: "secret"})
    assert "secret" not in refused.value.text()
    artefacts.require_sending("spark-1", {"ssh_user": "ann"})
