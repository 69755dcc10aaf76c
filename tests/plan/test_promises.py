"""What a run promises, tried against what pyinfra, its options and an operator's own files can do about it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from sparkfleet import ROOT, exits
from tests.plan.harness import (
    CURRENT_TAG,
    PREFIX_TAG,
    FakeFleet,
    Outcome,
    probe,
    release_of,
    rolled,
    serving,
)

HOSTS = [f"spark-{number}" for number in range(1, 5)]
OLD, NEW = release_of(PREFIX_TAG), release_of(CURRENT_TAG)
NO_GPU = probe(gpu={"devices": [], "error": "No devices were found"})


@pytest.fixture
def fleet(tmp_path: Path) -> FakeFleet:
    """Four hosts that serve the older release, about to take the current one."""
    found = FakeFleet(tmp_path, HOSTS)
    found.probes = {name: serving(OLD) for name in HOSTS}
    return found


def most_out(outcome: Outcome) -> int:
    """The most activations that were under way at the same time."""
    moments = sorted([(began, 1) for _, _, began, _ in outcome.spans] + [(ended, -1) for *_, ended in outcome.spans])
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def lives(process: int) -> bool:
    """Is it there, and no zombie that nobody has collected?"""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def own_file(fleet: FakeFleet, *lines: str) -> str:
    """A deploy file that an operator wrote."""
    path = fleet.folder / "site.py"
    path.write_text("\n".join(["from pyinfra import local", *lines]) + "\n")
    return str(path)


# One purpose a run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        "tasks/stage.py tasks/retire.py",
        "deploy.py tasks/retire.py",
        "tasks/retire.py deploy.py",
        "tasks/rollback.py deploy.py",
        "tasks/status.py deploy.py",
        "deploy.py deploy.py",
    ],
)
def test_several_deploy_files_are_refused(fleet: FakeFleet, files: str) -> None:
    outcome = fleet.run("-y", "--limit", "@fake/spark-1", deploy=files)
    assert outcome.code == exits.REFUSED, outcome.output
    assert "2 deploy files were given" in outcome.output
    assert outcome.commands == []


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['local.include("deploy.py")', 'local.include("tasks/retire.py")'], "started to deploy"),
        (['local.include("tasks/retire.py")', 'local.include("deploy.py")'], "started to retire"),
        (['local.include("tasks/stage.py")', 'local.include("tasks/rollback.py")'], "started to stage"),
        (['local.include("deploy.py")', 'local.include("deploy.py")'], "a second time"),
        (["from sparkfleet.operations import retire", "retire()"], "do not say what it is for"),
        (
            [
                "from sparkfleet import session",
                "from sparkfleet.operations import retire",
                'session.intends("deploy")',
                "retire()",
            ],
            "for retire was called in a run that was started to deploy",
        ),
        (['local.include("tasks/roll_out.py")'], "do not say what it is for"),
    ],
)
def test_an_own_file_with_two_purposes_or_none_is_refused(fleet: FakeFleet, lines: list[str], says: str) -> None:
    outcome = fleet.run("-y", "--limit", "@fake/spark-1", deploy=own_file(fleet, *lines))
    assert outcome.code == exits.REFUSED, outcome.output
    assert says in outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.changes() == []


@pytest.mark.parametrize("limit", [[], ["*"], ["fleet"], ["@fake/spark-[12]"], ["@fake/spark-2", "--limit", "canary"]])
@pytest.mark.parametrize("how", ["alone", "included", "copied"])
def test_only_hosts_that_were_named_are_retired(fleet: FakeFleet, limit: list[str], how: str) -> None:
    copied = fleet.folder / "decommission.py"
    copied.write_text((ROOT / "tasks/retire.py").read_text())
    files = {
        "alone": "tasks/retire.py",
        "included": own_file(fleet, 'local.include("tasks/retire.py")'),
        "copied": str(copied),
    }
    outcome = fleet.run("-y", *(["--limit", *limit] if limit else []), deploy=files[how])
    assert outcome.code == exits.REFUSED, outcome.output
    assert "would be retired that nobody named" in outcome.output
    assert outcome.changes() == []
    named = fleet.run("-y", "--limit", "@fake/spark-2", deploy=files[how])
    assert named.code == 0, named.output
    assert named.named("sparknode retire") == ["spark-2"]


@pytest.mark.parametrize("how", ["included", "copied"])
def test_an_own_file_rolls_back_as_ours_does(fleet: FakeFleet, how: str) -> None:
    fleet.probes = {name: rolled(OLD, NEW) for name in HOSTS}
    copied = fleet.folder / "undo.py"
    copied.write_text((ROOT / "tasks/rollback.py").read_text())
    file = own_file(fleet, 'local.include("tasks/rollback.py")') if how == "included" else str(copied)
    outcome = fleet.run("-y", deploy=file)
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS
    assert "--intent rollback" in next(command for _, command in outcome.commands if "activate" in command)


def test_our_operations_are_not_called_by_name(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y", deploy="sparkfleet.operations.retire")
    assert outcome.code == exits.REFUSED, outcome.output
    assert "was called by itself" in outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.commands == []


# pyinfra's options and questions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--serial"], "--serial"),
        (["--no-wait"], "--no-wait"),
        (["--retry", "2"], "--retry"),
        (["--fail-percent", "50"], "--fail-percent"),
        (["--exclude", "spark-1"], "no host matches --exclude spark-1, did you mean '@fake/spark-1'?"),
        (["--exclude", "@fake/spark-9"], "no host matches --exclude"),
        (["--limit", "@fake/spark-1", "--limit", "@fake/spark-12"], "no host matches --limit @fake/spark-12"),
        (["--limit", "canary", "--exclude", "@fake/spark-1"], "no host is left"),
        (["--data", "_ignore_errors=true"], "_ignore_errors is set for"),
        (["--data", "_retries=3"], "_retries is set for"),
        (["--data", "_timeout=5"], "_timeout is set for"),
    ],
)
def test_options_that_break_a_promise_are_refused(fleet: FakeFleet, arguments: list[str], says: str) -> None:
    outcome = fleet.run("-y", *arguments)
    assert outcome.code == exits.REFUSED, outcome.output
    assert says in outcome.output
    assert outcome.commands == []


@pytest.mark.parametrize("answers", ["\n\n\n\n\n\n", "x\n", ""])
def test_an_unfit_canary_stops_a_run_that_asks(fleet: FakeFleet, answers: str) -> None:
    fleet.probes["spark-1"] = NO_GPU
    outcome = fleet.run(answers=answers)
    assert outcome.code == exits.REFUSED, outcome.output
    assert outcome.changes() == []
    assert outcome.output.count("gpu.visible") == 1, "each finding is printed once"


def test_a_host_that_fails_in_staging_stops_a_run_that_asks(fleet: FakeFleet) -> None:
    fleet.nodes["spark-1"]["stage"] = "sparknode stage: the disk is full"
    outcome = fleet.run(answers="\n" * 6)
    assert outcome.code == exits.HALTED_OLD, outcome.output
    assert outcome.activations() == []


@pytest.mark.parametrize(("answers", "says"), [("no\n", "Unexpected user input"), ("", "standard input has ended")])
def test_a_no_is_no_success(fleet: FakeFleet, answers: str, says: str) -> None:
    outcome = fleet.run(answers=answers)
    assert outcome.code == exits.REFUSED, outcome.output
    assert says in outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.changes() == []


def test_enter_is_a_yes(fleet: FakeFleet) -> None:
    outcome = fleet.run(answers="\n")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS


@pytest.mark.parametrize(
    ("inventory", "says"),
    [
        ("inventory/prod", "did you mean inventory/prod.py?"),
        ("tests", "a folder"),
        ("tests.plan.harness.HOSTS", "not for host names or functions"),
    ],
)
def test_an_inventory_that_is_no_file_is_refused(fleet: FakeFleet, inventory: str, says: str) -> None:
    outcome = fleet.run("-y", inventory=Path(inventory))
    assert outcome.code == exits.REFUSED, outcome.output
    assert says in outcome.output


def test_another_configuration_is_refused_in_words(fleet: FakeFleet) -> None:
    other = fleet.folder / "other.py"
    other.write_text("")
    outcome = fleet.run("-y", "--config", str(other))
    assert outcome.code == 1, outcome.output
    assert "config.py was not loaded" in outcome.output
    assert "leave --config out" in outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.commands == []


def test_a_task_is_found_as_pyinfra_finds_it(fleet: FakeFleet) -> None:
    outcome = fleet.run("--chdir", ROOT.name, deploy=f"{ROOT.name}/tasks/status.py", cwd=ROOT.parent)
    assert outcome.code == 0, outcome.output
    assert "verified" in outcome.output


# Waves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_failure", ["halt", "revert_all"])
def test_an_error_that_nobody_foresaw_is_a_failed_host(fleet: FakeFleet, on_failure: str) -> None:
    fleet.nodes["spark-1"]["activate"] = [{"raises": "unexpected"}]
    outcome = fleet.run("-y", "--data", f"on_failure={on_failure}")
    assert outcome.code == exits.HOST_DOWN, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert "no answer: the tool failed here: TypeError" in outcome.output
    assert sorted(set(outcome.named("lease take"))) == sorted(set(outcome.named("lease release")))


def test_a_canary_that_is_gone_stops_the_run(fleet: FakeFleet) -> None:
    fleet.data.update(max_unavailable=3)
    fleet.nodes["spark-1"]["silent"] = True
    outcome = fleet.run("-y")
    assert outcome.code == exits.HOST_DOWN, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert "it committed the release, and has not answered since" in outcome.output


def test_going_back_keeps_the_promises_of_going_forward(tmp_path: Path) -> None:
    hosts = [f"spark-{number}" for number in range(1, 9)]
    fleet = FakeFleet(tmp_path, hosts)
    fleet.probes = {name: serving(OLD) for name in hosts}
    fleet.nodes = {name: {"activate": [{"state": "committed", "delay_s": 0.05}] * 2} for name in hosts}
    fleet.nodes["spark-8"] = {"activate": [{"state": "reverted", "error": "ready: never"}]}
    fleet.data.update(batch_size=[2], max_unavailable=2, min_serving=6, on_failure="revert_all")
    outcome = fleet.run("-y")
    assert outcome.code == exits.REVERTED, outcome.output
    assert most_out(outcome) <= 2
    back = [host for host, release, *_ in outcome.spans if release == OLD["id"]]
    assert sorted(back) == hosts[:7]
    waves = [hosts[0:1], hosts[1:3], hosts[3:5], hosts[5:7]]
    places = [next(number for number, wave in enumerate(waves) if host in wave) for host in back]
    assert places == sorted(places, reverse=True), "newest wave first"
    assert fleet.report()["outcome"] == "taken back"


def test_nobody_goes_back_where_that_would_leave_too_few(fleet: FakeFleet) -> None:
    fleet.data.update(on_failure="revert_all")
    fleet.fails("spark-3", "the way back failed too", state="failed")
    outcome = fleet.run("-y")
    assert outcome.code == exits.HOST_DOWN, outcome.output
    assert outcome.activations() == HOSTS[:3]
    assert "2 hosts keep the new release: @fake/spark-3 does not serve" in outcome.output


def test_a_way_back_that_fails_is_the_last(fleet: FakeFleet) -> None:
    fleet.data.update(on_failure="revert_all", max_unavailable=1)
    fleet.fails("spark-4", "ready: never")
    fleet.nodes["spark-3"]["activate"] = [{"state": "committed"}, {"state": "reverted", "error": "ready: never"}]
    outcome = fleet.run("-y")
    assert outcome.code == exits.HALTED_MIXED, outcome.output
    assert outcome.activations() == [*HOSTS, "spark-3"]


def test_unreachable_hosts_end_a_run_and_are_named(fleet: FakeFleet) -> None:
    fleet.nodes["spark-4"]["unreachable"] = True
    outcome = fleet.run(answers="\n\n\n")
    assert outcome.code == exits.UNREACHABLE, outcome.output
    assert "1 of 4 hosts cannot be reached: @fake/spark-4; nothing was changed" in outcome.output
    assert "--exclude @fake/spark-4" in outcome.output
    assert outcome.commands == []
    again = fleet.run("-y", "--exclude", "@fake/spark-4")
    assert again.code == 0, again.output
    assert again.activations() == HOSTS[:3]


def test_a_limit_smaller_than_min_serving_is_told_so(fleet: FakeFleet) -> None:
    fleet.data["min_serving"] = 3
    outcome = fleet.run("-y", "--limit", "@fake/spark-1")
    assert outcome.code == exits.REFUSED, outcome.output
    assert "the 3 hosts that --limit or --exclude left out are not counted" in outcome.output


# Exit codes and documents ----------------------------------------------------------------------------------------


def test_a_lease_that_cannot_be_written_is_no_other_roll_out(fleet: FakeFleet) -> None:
    fleet.nodes["spark-2"]["lease"] = "sparknode lease: [Errno 28] No space left on device"
    outcome = fleet.run("-y")
    assert outcome.code == exits.HALTED_OLD, outcome.output
    assert outcome.activations() == []


def test_what_a_login_prints_breaks_nothing(fleet: FakeFleet) -> None:
    for name in HOSTS:
        fleet.nodes[name].update(greeting=["welcome", "", "{not json"], farewell=["bye"])
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS


@pytest.mark.parametrize(
    ("hosts", "failing", "code"),
    [
        (HOSTS[:3], HOSTS[1:2], exits.HALTED_MIXED),
        (HOSTS[:2], HOSTS[:2], exits.HALTED_OLD),
        (HOSTS[:2], [], 0),
    ],
)
def test_a_retirement_that_fails_says_what_is_gone(
    fleet: FakeFleet, hosts: list[str], failing: list[str], code: int
) -> None:
    for name in failing:
        fleet.nodes[name]["retire"] = "sparknode retire: the drain hook failed"
    limits = [word for name in hosts for word in ("--limit", f"@fake/{name}")]
    outcome = fleet.run("-y", *limits, deploy="tasks/retire.py")
    assert outcome.code == code, outcome.output


@pytest.mark.parametrize("task", ["status", "history", "diff", "logs"])
@pytest.mark.parametrize("unreachable", [HOSTS, HOSTS[:1], []])
def test_a_look_prints_a_document_whoever_answers(fleet: FakeFleet, task: str, unreachable: list[str]) -> None:
    for name in unreachable:
        fleet.nodes[name]["unreachable"] = True
    with fleet.start("--json", deploy=f"tasks/{task}.py", split=True) as run:
        output, said = run.process.communicate(timeout=120)
    assert run.process.returncode == (exits.UNREACHABLE if unreachable else 0), said
    assert isinstance(json.loads(output), dict)


def test_a_look_shows_the_table_of_a_fleet_that_is_gone(fleet: FakeFleet) -> None:
    for name in HOSTS:
        fleet.nodes[name]["unreachable"] = True
    outcome = fleet.run(deploy="tasks/status.py")
    assert outcome.code == exits.UNREACHABLE, outcome.output
    assert outcome.output.count("no answer") == len(HOSTS)


def test_a_host_without_an_answer_is_no_success(fleet: FakeFleet) -> None:
    fleet.probes["spark-2"] = "Welcome to DGX OS"
    outcome = fleet.run(deploy="tasks/status.py")
    assert outcome.code == exits.UNREACHABLE, outcome.output


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda fleet: fleet.fails("spark-1", "ready: never"), exits.REVERTED),
        (lambda fleet: fleet.nodes["spark-1"].update(unreachable=True), exits.UNREACHABLE),
        (lambda fleet: fleet.probes.update({"spark-1": NO_GPU}), exits.REFUSED),
        (lambda fleet: fleet.data.update(image_tag="latest"), exits.REFUSED),
        (lambda fleet: fleet.nodes["spark-1"].update(stage="the disk is full"), exits.HALTED_OLD),
    ],
)
def test_json_prints_a_document_exactly_when_something_went_wrong(fleet: FakeFleet, spoil: object, code: int) -> None:
    assert callable(spoil)
    spoil(fleet)
    with fleet.start("-y", "--json", split=True) as run:
        output, said = run.process.communicate(timeout=120)
    assert run.process.returncode == code, said
    assert json.loads(output)["exit_code"] == code


def test_an_unprovisioned_host_does_not_drift(tmp_path: Path) -> None:
    fleet = FakeFleet(tmp_path, HOSTS[:1])
    fleet.probes["spark-1"]["fleet"]["serving"] = {"unit": "", "drift": ["no release is current here"]}
    outcome = fleet.run(deploy="tasks/status.py")
    assert "drift" not in outcome.output
    assert "unprovisioned" in outcome.output


# Surroundings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_service_ends_like_ctrl_c(fleet: FakeFleet, number: int) -> None:
    fleet.nodes["spark-1"]["activate"] = [{"state": "committed", "delay_s": 3}]
    with fleet.start("-y") as run:
        run.wait_for_command("activate")
        run.process.send_signal(number)
        output, _ = run.process.communicate(timeout=60)
    outcome = Outcome(run.process.returncode, output, run.commands())
    assert outcome.code == exits.INTERRUPTED, output
    assert outcome.activations() == ["spark-1"]
    assert sorted(outcome.named("lease release")) == HOSTS
    assert fleet.report()["outcome"] == "interrupted"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_a_terminal_of_any_encoding_shows_the_plan(fleet: FakeFleet, encoding: str) -> None:
    outcome = fleet.run("--dry", environment={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert outcome.code == 0, outcome.output
    assert "Traceback" not in outcome.output


def test_a_reader_that_left_ends_a_look_and_no_roll_out(fleet: FakeFleet) -> None:
    for deploy, code in (("tasks/status.py", 0), ("deploy.py", 0)):
        with fleet.start("-y", deploy=deploy, split=True) as run:
            assert run.process.stdout is not None
            run.process.stdout.close()
            assert run.process.stderr is not None
            said = run.process.stderr.read()
            assert run.process.wait(timeout=120) == code, said
            assert "Traceback" not in said
    assert [name for name, command in run.commands() if "sparknode activate" in command] == HOSTS


def test_a_user_without_a_name_is_a_number(fleet: FakeFleet) -> None:
    (fleet.folder / "sitecustomize.py").write_text(
        "import getpass\ndef getuser():\n    raise KeyError('getpwuid(): uid not found')\ngetpass.getuser = getuser\n"
    )
    outcome = fleet.run("-y", environment={"PYTHONPATH": f"{fleet.folder}{os.pathsep}{ROOT}"})
    assert outcome.code == 0, outcome.output
    assert f"by uid-{os.getuid()}@" in outcome.output


def test_more_hosts_than_open_files_are_refused_in_words(tmp_path: Path) -> None:
    fleet = FakeFleet(tmp_path, [f"spark-{number}" for number in range(60)])
    (tmp_path / "sitecustomize.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))\n"
    )
    outcome = fleet.run("-y", environment={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert outcome.code == exits.REFUSED, outcome.output
    assert "60 hosts need 108 open files, and this process may have 90" in outcome.output
    assert outcome.commands == []


def test_a_hook_s_time_limit_holds_for_what_it_started(fleet: FakeFleet) -> None:
    fleet.data["hooks_dir"] = str(fleet.folder / "hooks")
    (fleet.folder / "hooks").mkdir()
    path = fleet.folder / "hooks" / "pre-rollout"
    path.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {fleet.folder}/child\nexit 0\n")
    path.chmod(0o755)
    began = time.monotonic()
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert time.monotonic() - began < 60
    assert not lives(int((fleet.folder / "child").read_text()))


def test_one_typo_is_told_once(tmp_path: Path) -> None:
    fleet = FakeFleet(tmp_path, [f"spark-{number}" for number in range(50)])
    outcome = fleet.run("-y", "--data", "profil=production")
    assert outcome.code == exits.REFUSED, outcome.output
    assert len(outcome.output.splitlines()) < 24
    assert "all 50 hosts: unknown setting 'profil'" in outcome.output


def test_quiet_prints_waves_failures_and_the_end(fleet: FakeFleet) -> None:
    fleet.fails("spark-2", "acceptance-short: 0.0 %")
    outcome = fleet.run("-y", environment={"SPARKFLEET_QUIET": "1"})
    assert outcome.code == exits.HALTED_MIXED, outcome.output
    for words in ("Wave 1 of 4", "acceptance-short: 0.0 %", "stopped:"):
        assert words in outcome.output
    assert "Connected" not in outcome.output
    assert "Success" not in outcome.output
