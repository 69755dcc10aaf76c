"""What `make test` runs beside what, how it ends, and what its summary owns up to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiers
from tests.tiers import GROUPS, LAB, TIERS, Result, Run, Tier, stages, summary

FINE, BROKEN = (sys.executable, "-c", "pass"), (sys.executable, "-c", "raise SystemExit(3)")


def test_everything_is_run_by_make_test_but_the_whole_crash_matrix() -> None:
    assert set(GROUPS["all"]) == set(TIERS) - {"crash-all"}
    assert {name for name in GROUPS["all"] if TIERS[name].needs_lab} == set(LAB)


def test_lanes_run_side_by_side_after_the_quick_ones_and_before_the_last() -> None:
    found = stages(GROUPS["all"])
    assert found[0] == [["lint"], ["unit"]] == stages(GROUPS["fast"])[0]
    assert found[-1] == [["selftest"]]
    assert len(found) == 3
    assert sorted(name for lane in found[1] for name in lane) == sorted(
        set(GROUPS["all"]) - {*GROUPS["fast"], "selftest"}
    )


def test_no_two_lanes_share_a_lab() -> None:
    numbers = {
        lane: {TIERS[name].environment.get("SPARKFLEET_LAB_NUMBER") for name in TIERS if TIERS[name].lane == lane}
        for lane in ("lab 0", "lab 1")
    }
    assert numbers == {"lab 0": {"0"}, "lab 1": {"1"}}


def run_of(monkeypatch: pytest.MonkeyPatch, *, ci: bool = False, without_lab: str | None = None, **known: Tier) -> Run:
    monkeypatch.setattr(tiers, "TIERS", known)
    return Run(ci=ci, without_lab=without_lab)


def test_a_tier_that_fails_ends_its_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(monkeypatch, a=Tier((FINE, BROKEN), "x"), b=Tier((FINE,), "x"))
    run.lane(["a", "b"])
    assert run.failed
    assert list(run.results) == ["a"]
    monkeypatch.setattr(tiers, "TIERS", {"a": Tier((BROKEN,), "x"), "b": Tier((FINE,), "x")})
    assert tiers.main(["a", "b"]) == 1


def test_a_tier_without_its_lab_is_skipped_by_name_and_refused_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for ci, verdict in ((False, "skipped: no root"), (True, "failed: no root")):
        run = run_of(monkeypatch, ci=ci, without_lab="no root", a=Tier((FINE,), "x", needs_lab=True))
        run.lane(["a"])
        assert run.results["a"].verdict == verdict
        assert run.failed is ci


def test_a_skipped_test_is_in_the_summary_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(
        "import pytest\n"
        "@pytest.mark.skipif(True, reason='no moon')\ndef test_a(): ...\n"
        "@pytest.mark.parametrize('n', (1, 2))\ndef test_b(n): pytest.skip('no sun')\n"
        "def test_c(): assert 1\n"
    )
    command = (sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", str(file))
    run = run_of(monkeypatch, a=Tier((command,), "x"))
    run.lane(["a"])
    assert summary(["a", "b"], run.results) == [
        f"tier a         passed, 3 skipped ({run.results['a'].seconds:.0f} s)",
        "     skipped: 1 × no moon",
        "     skipped: 2 × no sun",
        "tier b         not run: another tier failed first",
    ]


def test_a_tier_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = (sys.executable, "-c", "import time; time.sleep(60)")
    run = run_of(monkeypatch, a=Tier((sleeper,), "x", limit_s=0.2))
    run.lane(["a"])
    assert run.results["a"].verdict.startswith("failed: not done within")


def test_sigterm_leaves_nothing_running() -> None:
    sleeper = "import time; print('up', flush=True); time.sleep(600)"
    text = (
        "import os, sys; from tests import tiers\n"
        f"tiers.TIERS = {{'a': tiers.Tier(((sys.executable, '-c', {sleeper!r}),), 'x')}}\n"
        "start = tiers.subprocess.Popen\n"
        "def started(*words, **more):\n"
        "    child = start(*words, **more); print(child.pid, flush=True); return child\n"
        "tiers.subprocess.Popen = started\n"
        "sys.exit(tiers.main(['a']))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    tier = int(child.stdout.readline())
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(tier, 0)


@pytest.mark.parametrize("arguments", [[], ["moon"]])
def test_an_unknown_tier_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert tiers.main(arguments) == 2
    assert "usage" in capsys.readouterr().out


def test_the_summary_says_how_long() -> None:
    assert summary(["fast"], {"fast": Result("passed", 90.4)}) == ["tier fast      passed (90 s)"]
