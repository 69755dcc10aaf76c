"""What an operator decided about findings, and what is told of them in the end."""

from __future__ import annotations

import datetime
from types import SimpleNamespace

from sparkfleet.preflight import preflight
from sparkfleet.preflight.findings import finding
from sparkfleet.preflight.waivers import Decisions, Waiver
from sparkfleet.release.rules import Finding
from tests.bundles import cdi_spec, document, seen
from tests.plan.harness import DRAFTER, DRAFTER_COMMIT, TARGET, TARGET_COMMIT
from tests.unit.sparkfleet.preflight.defects import CATALOG, CDI, with_files

MODELS = [{"repo": TARGET, "commit": TARGET_COMMIT}, {"repo": DRAFTER, "commit": DRAFTER_COMMIT}]
TODAY = datetime.date(2026, 11, 23)


def warning(row: str = "net.wifi") -> Finding:
    return Finding(row, "warn", "found", "expected", "why", "source", ("step",))


def test_a_waiver_holds_until_its_day_and_its_end_is_said() -> None:
    waivers = {"net.wifi": Waiver(reason="no cable there", until=TODAY)}
    (one,) = preflight.decided([warning()], Decisions(preflight_waivers=waivers), TODAY)
    assert (one.severity, one.found) == ("info", "found (waived until 2026-11-23: no cable there)")
    after = preflight.decided([warning()], Decisions(preflight_waivers=waivers), TODAY + datetime.timedelta(days=1))
    assert [(one.id, one.severity) for one in after] == [("waiver.expired", "warn"), ("net.wifi", "warn")]
    assert "ended on 2026-11-23 (no cable there)" in after[0].text()


def test_a_failure_is_not_waived_but_forced_by_name() -> None:
    failed = finding("docker.version", {}, PretendedView())
    waivers = {"docker.version": Waiver(reason="we know", until=TODAY)}
    assert not preflight.fit(preflight.decided([failed], Decisions(preflight_waivers=waivers), TODAY))
    (one,) = preflight.decided([failed], Decisions(force_preflight=["docker.version"]), TODAY)
    assert (one.severity, one.found) == ("warn", "passed over by force_preflight: Docker 23")
    assert not preflight.fit(preflight.decided([failed], Decisions(force_preflight=["docker.access"]), TODAY))


class PretendedView:
    hardware = CATALOG.hardware["gb10"]
    system = "dgx"
    facts = SimpleNamespace(docker=SimpleNamespace(server_version="23"))


def test_what_a_repair_will_mend_does_not_stop_the_run() -> None:
    found = preflight.check(seen(document(with_files(run_spec=cdi_spec("580.159.03")), models=MODELS)), CDI, CATALOG)
    assert not preflight.fit(preflight.decided(found, Decisions(repairs=["sleep_targets"]), TODAY))
    assert preflight.fit(preflight.decided(found, Decisions(repairs=["cdi_spec"]), TODAY))


def test_the_digest_says_each_thing_once_with_its_hosts() -> None:
    failed = Finding("gpu.visible", "fail", "no GPU", "one", "why", "source", ("type this",), maintenance=True)
    lines = preflight.digest({"a": [warning()], "b": [failed, warning()], "c": [warning()]})
    assert lines[0].startswith("fail: b: gpu.visible: no GPU")
    assert "in a maintenance window, by hand: type this" in lines[0]
    assert lines[1].startswith("warn: all hosts: net.wifi")
    assert "1 of 3 hosts are unfit: b; nothing was changed" in lines[2]
    assert lines[3] == "  to go on without them: --exclude b"
    assert preflight.digest({"a": [], "b": []}) == ["preflight: 2 of 2 hosts are fit"]
