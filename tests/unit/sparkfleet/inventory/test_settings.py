"""The knobs of a rollout at the border: what is taken, and what is refused in words."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from sparkfleet import ROOT
from sparkfleet.errors import SettingsError
from sparkfleet.inventory.pace import Pace
from sparkfleet.inventory.settings import FOREIGN_PREFIXES, Settings, parse_settings
from sparknode.base.shape import written

BASE = {"model": "m", "image_tag": "t", "profile": "p", "hardware": "h", "lock_file": "lock.json"}


@pytest.mark.parametrize(
    ("value", "steps"),
    [(2, (2,)), ("25%", ("25%",)), ([1, "25%", "100%"], (1, "25%", "100%"))],
)
def test_batch_sizes(value: object, steps: tuple[object, ...]) -> None:
    assert parse_settings("a", {**BASE, "batch_size": value}).pace == Pace(batch_size=steps)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("batch_size", 0, "from 1 up"),
        ("batch_size", [], "at least one step"),
        ("batch_size", [1, "150%"], 'such as "25%"'),
        ("batch_size", True, "number of hosts"),
        ("max_unavailable", 0, "from 1 up"),
        ("max_unavailable", "a few", "number of hosts"),
        ("min_serving", -1, "from 0 up"),
        ("max_failures", -1, "greater than or equal to 0"),
        ("on_failure", "retry", "'halt' or 'revert_all'"),
        ("lease_ttl_s", 5, "greater than or equal to 15"),
        ("rotation", {"out": {"command": ["x"]}}, "Field required"),
        ("repairs", ["reboot"], "'sleep_targets'"),
        ("force_preflight", ["mem.availible"], "did you mean 'mem.available'?"),
        ("preflight_waivers", {"host.clok": {"reason": "x", "until": "2027-01-01"}}, "did you mean 'host.clock'?"),
        ("preflight_waivers", {"host.clock": {"until": "2027-01-01"}}, "Field required"),
        ("preflight_waivers", {"host.clock": {"reason": "x", "until": "soon"}}, "valid date"),
        ("pinned_releases", ["1c7abcde"], "match pattern"),
        ("spread_subnet", "192.168.100.1/24", "has host bits set"),
        ("spread_subnet", "fd00::/8", "an IPv4 network"),
        ("readiness_port", 80, "greater than or equal to 1024"),
        ("readiness_port", True, "true and false are none"),
        ("readiness_network", "10.0.0.1/24", "host bits"),
        ("readiness_notice_s", 0, "greater than or equal to 1"),
        ("readiness_notice_s", 31, "less than or equal to 30"),
        ("rotation", {"out": {}, "in": {"command": ["x"]}}, "expected"),
        ("rotation", {"out": {"command": ["x"]}, "in": {"http": {"url": "lb/in"}}}, "match pattern"),
        ("rotation", {"out": {"command": ["x"]}, "in": {"http": {"url": "http://lb/in?api_token=x"}}}, "header_file"),
    ],
)
def test_refusals_name_host_key_and_what_is_expected(key: str, value: object, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings("spark-1", {**BASE, key: value})
    assert f"spark-1: {key}" in caught.value.text()
    assert says in caught.value.text()


def test_a_rotation_crosses_the_border_as_the_node_reads_it() -> None:
    rotation: dict[str, Any] = {
        "out": {"command": ["pool", "out"]},
        "in": {"http": {"method": "PUT", "url": "http://lb:8080/in?host=a", "header_file": "/etc/lb.headers"}},
    }
    operation = parse_settings("a", {**BASE, "rotation": rotation, "soak_s": 600, "watch": False}).operation
    assert written(operation.rotation) == {**rotation, "timeout_s": 10}
    assert (operation.soak_s, operation.watch) == (600, False)


def test_a_release_s_id_may_look_like_a_number() -> None:
    assert parse_settings("a", {**BASE, "retry_release": 1234567890123456}).retry_release == "1234567890123456"


def test_dropping_caches_becomes_part_of_the_release() -> None:
    assert parse_settings("a", {**BASE, "repairs": ["drop_caches"]}).operation.drop_caches
    assert not parse_settings("a", {**BASE, "repairs": ["sleep_targets"]}).operation.drop_caches


def group_data() -> dict[str, Any]:
    """What group_data/all.py sets, without the names that Python itself gives a module."""
    values = runpy.run_path(str(ROOT / "group_data" / "all.py"))
    return {name: value for name, value in values.items() if not name.startswith("_")}


def test_group_data_has_every_setting_and_nothing_else() -> None:
    names = set(group_data())
    foreign = {name for name in names if name.startswith(FOREIGN_PREFIXES)}
    assert names - foreign == set(Settings.model_fields)
    assert foreign == {"ssh_paramiko_connect_kwargs"}


def test_each_default_of_group_data_is_the_one_of_the_schema() -> None:
    known = {name: value for name, value in group_data().items() if name in Settings.model_fields}
    settings = parse_settings("spark-1", known)
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in Settings.model_fields.items()
        if not field.is_required()
    }
    assert {name: getattr(settings, name) for name in defaults} == defaults
