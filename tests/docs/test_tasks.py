"""The commands of README.md and docs/operating.md, each run as it stands there, on fake hosts of the sample."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparkfleet import ROOT
from sparknode.facts import collect
from tests import tiers
from tests.bundles import bundle
from tests.plan.harness import CURRENT_TAG, PREFIX_TAG, FakeFleet, own_command, release_of, rolled
from tests.unit.sparkfleet.cli.test_enroll import Desk
from tests.unit.sparkfleet.node.sshd import Sshd

PAGES = ("docs/operating.md", "CONTRIBUTING.md")
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
COMMANDS = [
    line
    for text in TEXTS.values()
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
README = re.findall(
    r"(?:^ +|`)((?:pyinfra|python -m sparkfleet) [^`\n]+)", (ROOT / "README.md").read_text(), re.MULTILINE
)
# Resolving names needs the registry and the Hub; tests/lab and tests/unit/sparkfleet/release/test_lockfile.py do that.
OFFLINE = [line for line in README if " lock" not in line and "-h" not in line and "--online" not in line]
PYINFRA = [line for line in dict.fromkeys(COMMANDS + OFFLINE) if line.startswith("pyinfra ")]
PYTEST = [line for line in COMMANDS if ".venv/bin/pytest" in line]
TIERED = [line for line in COMMANDS if "-m tests.tiers" in line]
OWN = [line for line in dict.fromkeys(COMMANDS + OFFLINE) if line.startswith("python -m sparkfleet ")]


def test_every_command_is_of_a_kind_that_is_run_here() -> None:
    rest = [line for line in COMMANDS if line not in (*PYINFRA, *OWN, *PYTEST, *TIERED)]
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line for line in rest if line.removeprefix("make ") not in targets] == []
    assert len(PYINFRA) >= 20
    assert len(OWN) >= 6


@pytest.mark.parametrize("command", PYTEST)
def test_a_command_that_runs_tests_finds_some(command: str) -> None:
    words = command.partition("#")[0].replace(".venv/bin/pytest", f"{sys.executable} -m pytest --collect-only -q")
    done = subprocess.run(["bash", "-c", words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_tiers_that_are_named_exist() -> None:
    named = [word for line in TIERED for word in line.partition("#")[0].partition("tests.tiers")[2].split()]
    assert named
    assert set(named) <= {*tiers.TIERS, *tiers.GROUPS}


@pytest.mark.parametrize("command", PYINFRA)
def test_a_task(command: str, tmp_path: Path) -> None:
    words = shlex.split(command.replace("NAME", "spark-04.local").replace("=ID", f"={release_of(CURRENT_TAG).id}"))[1:]
    assert words[0] == "inventory/prod.py"
    hosts = [f"spark-0{number}.local" for number in range(1, 5)]
    fleet = FakeFleet(tmp_path, hosts)
    old, new = release_of(PREFIX_TAG), release_of(CURRENT_TAG)
    fleet.probes = {name: rolled(old, new) for name in hosts}
    arguments = [f"@fake/{word}" if word in hosts else word for word in words[2:]]
    # Where a person would be asked, the answer is yes.
    outcome = fleet.run("-y", *arguments, deploy=words[1])
    assert outcome.code == 0, outcome.output


@pytest.mark.parametrize("command", OWN)
def test_a_command_of_its_own(command: str, tmp_path: Path) -> None:
    words = shlex.split(command.replace("NAME", "spark-07.local" if " enroll " in command else "spark-04.local"))[3:]
    if words[0] == "check":
        words[1] = str(tmp_path / "spark-03.local.tar.gz")
        Path(words[1]).write_bytes(collect.pack(collect.documents(bundle())))
    if words[0] != "enroll":
        done = own_command(*words)
        assert done.returncode == 0, done.stderr
        assert done.stdout
        return
    desk, host = Desk(tmp_path), Sshd(tmp_path / "home")
    try:
        assert words[2:4] == ["--inventory", "inventory/prod.py"]
        more = ["--address", "127.0.0.1", "--accept", str(host.key.fingerprint)]
        assert desk.enroll(host, *words[4:], *more, name=words[1]) == 0, desk.err
    finally:
        host.close()
    assert f'("{words[1]}", {{"ssh_user": "nvidia", "ssh_hostname": "127.0.0.1"' in desk.inventory.read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd checks its own files")
def test_the_units_of_the_documentation_are_units(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```ini\n(.*?)^```", TEXTS["docs/operating.md"], re.DOTALL | re.MULTILINE)
    units = dict(re.findall(r"^# /etc/systemd/system/(\S+)\n(.*?)(?=^# |\Z)", text, re.DOTALL | re.MULTILINE))
    assert len(units) == 2
    for name, unit in units.items():
        runs = re.findall(r"^ExecStart=/srv/sparkfleet/.venv/bin/(.*)$", unit, re.MULTILINE)
        assert set(runs) <= set(PYINFRA)
        # The programs are the reader's; systemd would miss them here.
        (tmp_path / name).write_text(re.sub(r"=/\S+/(git|pyinfra) ", "=/bin/true ", unit))
    analyzed = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in units)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (analyzed.returncode, analyzed.stderr) == (0, "")


def test_the_messages_of_the_troubleshooting_are_messages_of_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    sources = [path.read_text() for folder in ("sparkfleet", "sparknode") for path in (ROOT / folder).rglob("*.py")]
    code = " ".join(re.sub(r'"\s*\n\s*f?"', "", text) for text in sources)
    missing = [row for row in rows if not all(part.strip() in code for part in row.split("…"))]
    assert missing == []
    assert len(rows) > 15
