"""An operator's tasks on booted hosts: look, upgrade, roll back, restart, repair drift, enroll and retire."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.rollout import exit_codes
from tests.lab.cases.conftest import lab
from tests.lab.cases.reading import (
    AT_ONCE,
    CURRENT_TAG,
    LEASE_S,
    PREFIX_TAG,
    ROOT,
    STATE,
    Node,
    Outcome,
    pyinfra,
    shown,
    sparkfleet,
    wait_for,
)

# What a look, a lease and the minutely watch write is no part of what a host serves.
CHECKSUM = (
    f"find {STATE} /etc/systemd/system /usr/local -type f ! -path '*/cache/*' ! -name 'watch.json' ! -name '*.prom' "
    "-exec sha256sum {} + | sort -k2; docker image ls --no-trunc -q | sort"
)


def started(nodes: list[Node]) -> dict[str, str]:
    return {node.name: (node.container() or {})["State"]["StartedAt"] for node in nodes}


def json_of(task: str) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "pyinfra"), "inventory/lab.py", f"tasks/{task}.py", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture
def upgraded(serving: list[Node]) -> Iterator[list[Node]]:
    """Hosts that were on the pre-fix tag, and took the current one."""
    for tag in (PREFIX_TAG, CURRENT_TAG):
        outcome = pyinfra("--data", f"image_tag={tag}", *AT_ONCE)
        assert outcome.code == 0, outcome.output
    yield serving
    outcome = pyinfra("--data", f"image_tag={CURRENT_TAG}", *AT_ONCE)
    assert outcome.code == 0, outcome.output


def test_a_dry_run_prints_the_plan_and_writes_nothing(serving: list[Node]) -> None:
    before = [node.sudo(CHECKSUM) for node in serving]
    outcome = pyinfra("--dry", "--data", f"image_tag={PREFIX_TAG}")
    assert outcome.code == 0, outcome.output
    assert "drafter backend: flash_attn → flex_attention" in outcome.output
    assert "never fewer than 3 of 4 hosts serve" in outcome.output
    assert [node.sudo(CHECKSUM) for node in serving] == before


def test_roll_back_asks_nobody_and_is_not_undone_unasked(upgraded: list[Node]) -> None:
    sent = lab("status").split("hub sent")[1].split()[0]
    old = {node.name: shown(node.name, f"image_tag={PREFIX_TAG}")["id"] for node in upgraded}
    outcome = pyinfra(*AT_ONCE, deploy="tasks/rollback.py")
    assert outcome.code == 0, outcome.output
    for node in upgraded:
        assert node.link("current") == node.link("verified") == old[node.name]
        assert node.journal()[-1]["intent"] == "rollback"
        assert node.serves()
    assert lab("status").split("hub sent")[1].split()[0] == sent

    again = pyinfra(deploy="tasks/rollback.py")
    assert again.code == 0, again.output
    assert "nothing to do" in again.output
    plain = pyinfra()
    assert plain.code == exit_codes.REFUSED, plain.output
    assert "would roll forward again" in plain.output
    new = shown(upgraded[0].name)["id"]
    # Hosts of two kinds have releases of their own, and each choice names one.
    forward = pyinfra("--limit", upgraded[0].name, "--data", f"roll_forward={new}")
    assert forward.code == 0, forward.output
    assert upgraded[0].link("verified") == new


def test_a_restart_starts_every_engine_again_and_keeps_the_way_back(upgraded: list[Node]) -> None:
    before, back = started(upgraded), {node.name: node.link("previous") for node in upgraded}
    outcome = pyinfra(*AT_ONCE, deploy="tasks/restart.py")
    assert outcome.code == 0, outcome.output
    after = started(upgraded)
    assert all(after[name] > before[name] for name in before)
    assert {node.name: node.link("previous") for node in upgraded} == back
    assert all(node.serves() for node in upgraded)


UNIT, RELOAD = "/etc/systemd/system/sparkfleet-serve.service", "systemctl daemon-reload"
CONFIG = f"$(ls {STATE}/models/*/*/*/config.json | head -1)"
RUNS = "$(docker inspect -f {{.Config.Image}} sparkfleet-serve)"
# Each kind of drift, made with plain tools: the commands, and what is said of it. Three at a time, each on its host.
DRIFT = {
    "unit edited": (f"echo '# edited' >> {UNIT}", "is not the text that the release holds"),
    "drop-in": (
        f"mkdir -p {UNIT}.d; printf '[Service]\\nRestart=no\\n' > {UNIT}.d/override.conf; {RELOAD}",
        "override.conf changes it",
    ),
    "container by hand": (
        f"image={RUNS}; systemctl stop sparkfleet-serve; docker rm -f sparkfleet-serve; "
        "docker run -d --name sparkfleet-serve --entrypoint sleep $image 600",
        "entrypoint: the container runs",
    ),
    "model file": (f"chmod u+w {CONFIG} && echo >> {CONFIG}", "are changed or missing"),
    "image under the name": (
        f"image={RUNS}; docker commit --pause=false sparkfleet-serve by:hand; docker tag by:hand $image",
        "stands for",
    ),
    "variable": (
        f"sed -i s/FLASHINFER_SAMPLER=1/FLASHINFER_SAMPLER=0/ {UNIT}; {RELOAD}; systemctl restart sparkfleet-serve",
        "VLLM_USE_FLASHINFER_SAMPLER is '0', the release has '1'",
    ),
    "link gone": (f"rm {STATE}/verified", "verified is no release"),
    "engine stopped": ("systemctl stop sparkfleet-serve", "it is inactive, expected active"),
    "not enabled": ("systemctl disable sparkfleet-serve", "nothing would serve after a boot"),
}
NO_DRIFT: dict[str, list[str]] = {"a deploy changes": [], "drift": []}


@pytest.mark.parametrize("first", range(0, len(DRIFT), 3))
def test_drift_of_each_kind_is_told_and_repaired_and_only_that(serving: list[Node], first: int) -> None:
    kinds = list(DRIFT)[first : first + 3]
    control, *drifted = serving[first // 3 :] + serving[: first // 3]
    before = started(serving)
    for node, kind in zip(drifted, kinds, strict=True):
        node.sudo(DRIFT[kind][0])
    found, table = json_of("diff"), json_of("status")
    assert found.pop(control.name) == NO_DRIFT
    for node, kind in zip(drifted, kinds, strict=True):
        assert DRIFT[kind][1] in "; ".join(found[node.name]["drift"]), (kind, found[node.name])
        assert found[node.name]["a deploy changes"] == []
        assert table[node.name]["state"] != "verified", kind
    assert table[control.name]["state"] == "verified"

    outcome = pyinfra(*AT_ONCE)
    assert outcome.code == 0, outcome.output
    assert json_of("diff") == dict.fromkeys((node.name for node in serving), NO_DRIFT)
    assert all(node.serves() for node in serving)
    after = started(serving)
    untouched = [control] + [node for node, kind in zip(drifted, kinds, strict=True) if kind == "image under the name"]
    assert {node.name: after[node.name] for node in untouched} == {node.name: before[node.name] for node in untouched}


def test_the_doctor_leaves_nothing_on_a_host_and_its_bundle_can_be_judged(serving: list[Node], tmp_path: Path) -> None:
    node, *others = serving
    before = node.sudo(f"ls -A /tmp /root; {CHECKSUM}")
    outcome = pyinfra("--limit", node.name, deploy="tasks/doctor.py")
    assert outcome.code == 0, outcome.output
    assert node.sudo(f"ls -A /tmp /root; {CHECKSUM}") == before
    path = Path(outcome.output.split(f"{node.name}: bundle: ")[1].split()[0])
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    (bundle,) = tmp_path.iterdir()
    texts = {str(file.relative_to(bundle)): file.read_text() for file in bundle.rglob("*") if file.is_file()}
    assert "committed" in texts["commands/journal.json"]
    assert "sparkfleet-serve" in texts["commands/log.json"]
    assert not [name for name, text in texts.items() if node.address in text]
    assert not any(other.name in outcome.output for other in others)
    judged = ["--hardware", "lab-x86", "--profile", "lab-agentic", "--catalog-overlay", "tests/lab/catalog"]
    said = sparkfleet("check", str(path), "--image-tag", CURRENT_TAG, *judged)
    assert said.output.endswith("fit\n"), said.output


def test_the_table_comes_soon_and_a_dead_host_hides_no_other(serving: list[Node]) -> None:
    outcome = pyinfra(deploy="tasks/status.py")
    assert outcome.code == 0, outcome.output
    verified = sum("verified" in line for line in outcome.output.splitlines())
    assert verified == len(serving), outcome.output
    # Four hosts on two shared cores, and the machine may have a bad moment.
    assert any(pyinfra(deploy="tasks/status.py").seconds < 6 for _ in range(3))
    history = pyinfra(deploy="tasks/history.py")
    assert history.code == 0
    assert "committed" in history.output
    logs = pyinfra(deploy="tasks/logs.py")
    assert logs.code == 0
    assert f"{serving[3].name}: " in logs.output


# --- enroll: a host with a first-boot user of whom only the password is known -------------------------------------


@pytest.fixture
def fresh(nodes: list[Node]) -> Iterator[Node]:
    node = nodes[3]
    node.sudo(
        "for user in nvidia guest; do userdel -rf $user 2>/dev/null; useradd -m -s /bin/bash $user; "
        "echo $user:secret | chpasswd; done; usermod -aG sudo nvidia; "
        "mkdir -p /etc/ssh/sshd_config.d; echo 'PasswordAuthentication yes' > /etc/ssh/sshd_config.d/00-lab.conf; "
        "systemctl reload ssh"
    )
    yield node
    node.sudo(
        "userdel -rf nvidia; userdel -rf guest; rm -f /etc/sudoers.d/sparkfleet /etc/ssh/sshd_config.d/00-lab.conf; "
        "systemctl reload ssh",
        check=False,
    )


def enroll(node: Node, folder: Path, *more: str, password: str = "secret") -> Outcome:
    if not (folder / "id").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id")], check=True)
        (folder / "fleet.py").write_text("# our hosts\nfleet = [\n]\n")
    scanned = subprocess.run(["ssh-keyscan", "-t", "ed25519", node.address], capture_output=True, text=True, check=True)
    listed = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=scanned.stdout, capture_output=True, text=True, check=True
    )
    own = ["--inventory", str(folder / "fleet.py"), "--known-hosts", str(folder / "pins"), "--key", str(folder / "id")]
    own += ["--address", node.address, "--accept", listed.stdout.split()[1], "--password-stdin"]
    done = subprocess.run(
        [sys.executable, "-m", "sparkfleet", "enroll", node.name, *own, *more],
        cwd=ROOT,
        input=f"{password}\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout + done.stderr, 0)


def test_a_first_boot_user_is_enrolled(fresh: Node, tmp_path: Path) -> None:
    wrong = enroll(fresh, tmp_path, password="wrong")
    assert wrong.code == 2
    assert "could not log in" in wrong.output
    without = enroll(fresh, tmp_path, "--user", "guest", "--sudoers")
    assert without.code == 2
    assert "guest may not use sudo" in without.output
    outcome = enroll(fresh, tmp_path, "--sudoers", "--write")
    assert outcome.code == 0, outcome.output
    assert f"machine: {fresh.name}" in outcome.output
    assert "NVIDIA GB10" in outcome.output
    text = (tmp_path / "fleet.py").read_text()
    assert text.startswith("# our hosts\nfleet = [\n]\n"), "what was written before stays as it was"
    assert [name for name, _ in runpy.run_path(str(tmp_path / "fleet.py"))["fleet"]] == [fresh.name]
    assert "secret" not in outcome.output + text

    login = ["ssh", "-i", str(tmp_path / "id"), "-o", f"UserKnownHostsFile={tmp_path / 'pins'}", "-o", "BatchMode=yes"]
    login += ["-o", "StrictHostKeyChecking=yes", f"nvidia@{fresh.address}", "sudo -n sh -c 'id -u'"]
    assert subprocess.run(login, capture_output=True, text=True, check=True).stdout.strip() == "0"

    fresh.sudo("mv /etc/ssh/ssh_host_ed25519_key /root/; mv /etc/ssh/ssh_host_ed25519_key.pub /root/; "
               "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; systemctl restart ssh")  # fmt: skip
    try:
        changed = enroll(fresh, tmp_path)
        assert changed.code == 2
        assert "another host key than the pinned one" in changed.output
        assert changed.output.count("SHA256:") == 2
        assert enroll(fresh, tmp_path, "--renew").code == 0
    finally:
        subprocess.run([*login[:-1], "sudo -n sh -c 'mv /root/ssh_host_ed25519_key* /etc/ssh/; systemctl restart ssh'"],
                       check=True)  # fmt: skip
        wait_for("the host", fresh.reachable)


def begin_a_look_that_hangs(node: Node) -> None:
    """A look that hangs while its timer is due again: whoever ends it before the timer gets another one."""
    folder, due = "/run/systemd/system", "[Timer]\\nOnCalendar=\\nOnCalendar=*:*:*\\nRandomizedDelaySec=0\\n"
    service, timer = f"{folder}/sparkfleet-watch.service.d", f"{folder}/sparkfleet-watch.timer.d"
    node.sudo(
        f"mkdir -p {service} {timer}; printf '[Service]\\nExecStartPre=/bin/sleep 50\\n' >{service}/slow.conf; "
        f"printf '{due}' >{timer}/due.conf; systemctl daemon-reload; systemctl stop sparkfleet-watch.service; "
        f"systemctl restart sparkfleet-watch.timer; systemctl start --no-block sparkfleet-watch.service; "
        f"rm -r {service} {timer}"
    )
    wait_for(
        "the look to begin", lambda: "activating" in node.sudo("systemctl is-active sparkfleet-watch", check=False)
    )


def test_a_host_is_retired_and_taken_back(serving: list[Node]) -> None:
    leaving, others = serving[3], serving[:3]
    before = started(others)
    wait_for("the lease to end", leaving.is_free, LEASE_S + 5)
    begin_a_look_that_hangs(leaving)
    outcome = pyinfra("--limit", leaving.name, deploy="tasks/retire.py")
    assert outcome.code == 0, outcome.output
    assert leaving.container() is None
    left = leaving.sudo(
        f"ls {STATE}; ls -d /usr/local/*/sparknode; ls /etc/systemd/system | grep spark; "
        "systemctl list-units --all 'sparkfleet*' --no-legend --plain; "
        "docker image ls -q --filter reference='*/*/aeon-vllm-ultimate'",
        check=False,
    )
    assert left.split() == ["models"], outcome.output
    assert started(others) == before
    back = pyinfra("--limit", leaving.name)
    assert back.code == 0, back.output
    assert leaving.serves()
