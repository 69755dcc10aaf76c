"""Repairs: each only where something is missing, and never what belongs into a maintenance window."""

from __future__ import annotations

from typing import Any

import pytest

from sparkfleet.catalog.catalog import load
from sparkfleet.preflight.checks.view import View
from sparkfleet.preflight.findings import book
from sparkfleet.preflight.repairs import EARLYOOM_FILE, EARLYOOM_UNIT, REPAIRS, Command, files
from sparknode.base import parse
from sparknode.facts.collect import Raw
from sparknode.state.release import Release
from tests.bundles import MISSING, bundle, cdi_spec, document, facts_of, units
from tests.unit.sparkfleet.preflight.defects import CDI, PLAIN, answers, with_files

OLD = "580.159.03"
SERVING: dict[str, Any] = {"serving": {"unit": "active", "release": "x", "drift": []}}
EARLYOOM_PACKAGE = "earlyoom 1.7-2 ii \n"


def steps(name: str, raw: Raw, release: Release = PLAIN, user: str = "nvidia", **fleet: Any) -> list[Command]:
    return REPAIRS[name](View(facts_of(document(raw, **fleet)), release, load()), user)


@pytest.mark.parametrize("name", REPAIRS)
@pytest.mark.parametrize("release", [PLAIN, CDI], ids=["gpus", "cdi"])
def test_a_fit_host_needs_no_repair(name: str, release: Release) -> None:
    assert steps(name, bundle(), release) == []


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        (
            "apt_holds",
            answers(packages="nvidia-driver-580-open 1 ii \nnvidia-firmware-580-x 1 hi \nnvidia-settings 1 ii \n"),
            [("apt-mark", "hold", "nvidia-driver-580-open")],
        ),
        (
            "cdi_refresh",
            answers(units=units(**{"nvidia-cdi-refresh.path": "loaded inactive disabled"})),
            [
                ("systemctl", "enable", "--no-reload", "nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service"),
                ("systemctl", "start", "nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service"),
            ],
        ),
        ("cdi_refresh", answers(units=units(**{"nvidia-cdi-refresh.path": "not-found inactive "})), []),
        ("cdi_spec", with_files(run_spec=cdi_spec(OLD)), [("systemctl", "restart", "nvidia-cdi-refresh.service")]),
        (
            "cdi_spec",
            with_files(spec=cdi_spec(OLD)),
            [("mv", "/etc/cdi/nvidia.yaml", "/etc/cdi/nvidia.yaml.stale")],
        ),
        (
            "cdi_spec",
            bundle(
                {"/var/run/cdi/nvidia.yaml": cdi_spec(OLD)},
                {"units": units(**{"nvidia-cdi-refresh.service": "not-found inactive "})},
            ),
            [
                ("mv", "/var/run/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml.stale"),
                ("nvidia-ctk", "cdi", "generate", "--output=/etc/cdi/nvidia.yaml"),
            ],
        ),
        (
            "docker_group",
            answers(docker_group="docker:x:988:\n"),
            [("usermod", "--append", "--groups", "docker", "nvidia")],
        ),
        (
            "sleep_targets",
            answers(units=units(sleep_target="loaded inactive static")),
            [
                (
                    "systemctl",
                    "mask",
                    "--no-reload",
                    "sleep.target",
                    "suspend.target",
                    "hibernate.target",
                    "hybrid-sleep.target",
                )
            ],
        ),
    ],
)
def test_what_is_missing_is_done(name: str, raw: Raw, expected: list[Command]) -> None:
    assert steps(name, raw) == expected


def test_a_host_without_any_specification_gets_one_where_its_release_needs_it() -> None:
    bare = bundle({"/var/run/cdi/nvidia.yaml": None}, {"cdi": MISSING})
    assert steps("cdi_spec", bare, CDI) == [("systemctl", "restart", "nvidia-cdi-refresh.service")]
    assert steps("cdi_spec", bare, PLAIN) == []


def test_root_joins_no_group() -> None:
    assert steps("docker_group", answers(docker_group="docker:x:988:\n"), user="root") == []


def test_earlyoom_is_installed_set_up_and_started() -> None:
    absent = answers(units=units(earlyoom_service="not-found inactive "), packages="")
    install, enable, restart = steps("earlyoom", absent)
    assert install[-1] == "earlyoom"
    assert (enable[1], restart[1]) == ("enable", "restart")
    there = bundle({"/etc/default/earlyoom": 'EARLYOOM_ARGS="-r 3600"\n'}, {"packages": EARLYOOM_PACKAGE})
    assert [command[1] for command in steps("earlyoom", there)] == ["enable", "restart"]


def test_earlyoom_waits_for_an_engine_whose_gpu_a_reload_could_take() -> None:
    absent = answers(units=units(earlyoom_service="not-found inactive "), packages="")
    assert steps("earlyoom", absent, PLAIN, **SERVING) == []
    assert steps("earlyoom", absent, CDI, **SERVING) != []


def test_the_files_of_earlyoom_say_what_the_probe_then_finds() -> None:
    written = files("earlyoom")
    assert parse.assignments(written[EARLYOOM_FILE])["EARLYOOM_ARGS"] == book().earlyoom.arguments
    assert "CapabilityBoundingSet=CAP_KILL CAP_IPC_LOCK" in written[EARLYOOM_UNIT]
    assert files("sleep_targets") == {}


def test_no_repair_touches_driver_firmware_or_power() -> None:
    worst = bundle(
        {
            "/etc/cdi/nvidia.yaml": cdi_spec(OLD),
            "/var/run/cdi/nvidia.yaml": cdi_spec(OLD),
            "/etc/default/earlyoom": None,
        },
        {
            "units": "Names=x\n",
            "packages": "nvidia-driver-580-open 1 ii \n",
            "docker-group": "docker:x:988:\n",
        },
    )
    for name in REPAIRS:
        for command in steps(name, worst):
            assert command[0] in ("apt-mark", "systemctl", "mv", "nvidia-ctk", "usermod", "env")
            assert not {"reboot", "poweroff", "daemon-reload", "fwupdmgr", "dist-upgrade"} & set(command)
            assert command[0] != "apt-mark" or command[1] == "hold"


def test_every_repair_that_a_row_names_exists() -> None:
    named = {text.repair for text in book().checks.values() if text.repair}
    assert named <= {*REPAIRS, "drop_caches"}
