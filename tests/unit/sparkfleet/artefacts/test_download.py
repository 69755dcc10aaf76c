"""Sending weights from the controller: rsync reaches a host as pyinfra does, or the host is refused."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from sparkfleet.artefacts import download
from sparkfleet.errors import FleetError


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
    argv = download.rsync_argv("spark-1", data, "/here/", "/there/")
    words = [*argv, *shlex.split(argv[argv.index("--rsh") + 1])]
    assert [word for word in has if word not in words] == []


@pytest.mark.parametrize("key", ["ssh_password", "ssh_key_password"])
def test_a_login_that_rsync_cannot_make_is_refused_before_anything_is_fetched(key: str) -> None:
    with pytest.raises(FleetError, match=key) as refused:
        download.require_sending("spark-1", {key: "secret"})
    assert "secret" not in refused.value.text()
    download.require_sending("spark-1", {"ssh_user": "ann"})
