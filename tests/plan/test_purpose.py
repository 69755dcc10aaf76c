"""One purpose a run, whatever files are given, own ones included."""

from __future__ import annotations

import pytest

from sparkfleet import ROOT
from sparkfleet.rollout import exit_codes
from tests.plan.harness import (
    CURRENT_TAG,
    PREFIX_TAG,
    FakeFleet,
    release_of,
    rolled,
)

HOSTS = [f"spark-{number}" for number in range(1, 5)]
OLD, NEW = release_of(PREFIX_TAG), release_of(CURRENT_TAG)


def own_file(fleet: FakeFleet, *lines: str) -> str:
    """A deploy file that an operator wrote."""
    path = fleet.folder / "site.py"
    path.write_text("\n".join(["from pyinfra import local", *lines]) + "\n")
    return str(path)


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
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert "2 deploy files were given" in outcome.output
    assert outcome.commands == []


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['local.include("deploy.py")', 'local.include("tasks/retire.py")'], "started to deploy"),
        (['local.include("tasks/retire.py")', 'local.include("deploy.py")'], "started to retire"),
        (['local.include("tasks/stage.py")', 'local.include("tasks/rollback.py")'], "started to stage"),
        (['local.include("deploy.py")', 'local.include("deploy.py")'], "a second time"),
        (["from sparkfleet.deploy.operations import retire", "retire()"], "do not say what it is for"),
        (
            [
                "from sparkfleet.deploy import session",
                "from sparkfleet.deploy.operations import retire",
                'session.intends("deploy")',
                "retire()",
            ],
            "for retire was called in a run that was started to deploy",
        ),
        (["from sparkfleet.deploy.steps import roll_out", "roll_out()"], "do not say what it is for"),
    ],
)
def test_an_own_file_with_two_purposes_or_none_is_refused(fleet: FakeFleet, lines: list[str], says: str) -> None:
    outcome = fleet.run("-y", "--limit", "@fake/spark-1", deploy=own_file(fleet, *lines))
    assert outcome.code == exit_codes.REFUSED, outcome.output
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
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert "would be retired without being named" in outcome.output
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
    outcome = fleet.run("-y", deploy="sparkfleet.deploy.operations.retire")
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert "was called by itself" in outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.commands == []
