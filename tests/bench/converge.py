"""What it costs to hear that nothing needs doing: beside connecting alone, and beside Ansible and mitogen."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.lighthosts import Light, LightHost
from tests.bench.measure import Series, interleaved, ratio
from tests.bench.snapshot import PYINFRA
from tests.lab.config import ROOT

PLAYBOOK = Path(__file__).parent / "ansible" / "site.yml"
ANSIBLE_ENV = Path.home() / ".cache/sparkfleet/bench/ansible"
ANSIBLE_PACKAGES = ("ansible-core>=2.17,<2.20", "mitogen>=0.3.24,<0.4")
# With the probes answered after the time that a host of its own takes: what hosts do costs this machine nothing then.
OWN = ", own processors"
# Above this many hosts only the ratio is measured, and nothing that they would carry out themselves: so many probes on
# one machine's processors miss their own deadlines.
LARGE = 64
PEERS = ("ansible", "mitogen")


def measure(folder: Path, lock: Path, light: Light, rounds: int, peer_rounds: int) -> dict[str, Series]:
    """Seconds of each way, all in one interleaved run; Ansible only where it gets a round."""
    inventory = str(write_inventory(folder, lock, light.hosts, light.ssh))
    commands = {
        "connect": [PYINFRA, inventory, "exec", "--", "true"],
        "no-op": [PYINFRA, inventory, "deploy.py", "-y", "--chdir", str(ROOT)],
        "sync": [PYINFRA, inventory, "tasks/stage.py", "-y", "--chdir", str(ROOT)],
        "dry": [PYINFRA, inventory, "deploy.py", "--dry", "--chdir", str(ROOT)],
        "status": [PYINFRA, inventory, "tasks/status.py", "--chdir", str(ROOT)],
    }
    commands |= {f"{name}{OWN}": commands[name] for name in ("no-op", "sync", "dry", "status")}
    if len(light.hosts) > LARGE:
        commands = {name: commands[name] for name in ("connect", f"no-op{OWN}")}
    if peer_rounds:
        playbook = [str(ensure_ansible() / "bin/ansible-playbook"), "-i", str(write_hosts(folder, light))]
        playbook += ["-f", str(len(light.hosts)), "-e", f"@{write_variables(folder)}", str(PLAYBOOK)]
        commands |= {"ansible": playbook, "mitogen": ["env", *mitogen(), *playbook]}
    settings = folder / "ansible.cfg"
    settings.write_text("[defaults]\n")
    light.commands()
    return interleaved(
        commands,
        rounds,
        folder,
        lambda name: light.recorded(name.endswith(OWN)),
        light.commands,
        dict.fromkeys(PEERS, peer_rounds),
        PYINFRA_PROGRESS="off",
        ANSIBLE_PIPELINING="True",
        ANSIBLE_CONFIG=str(settings),
    )


def write_inventory(folder: Path, lock: Path, hosts: list[LightHost], ssh: dict[str, Any]) -> Path:
    data = {
        **ssh,
        "ssh_strict_host_key_checking": "yes",
        "hardware": "lab-x86" if platform.machine() == "x86_64" else "lab-arm",
        "catalog_overlays": ["tests/lab/catalog"],
        "lock_file": str(lock),
        "runs_dir": str(folder / "runs"),
        "allow_unauthenticated": "the lab is reachable from this computer alone",
        "terms_accepted": {"gemma4-26b-a4b-nvfp4": {"by": "the lab serves toy weights", "on": "2026-11-01"}},
        "profile": "lab-agentic",
    }
    path = folder / "light.py"
    path.write_text(f"fleet = {[(host.name, {**data, 'ssh_hostname': host.address}) for host in hosts]!r}\n")
    return path


def write_hosts(folder: Path, light: Light) -> Path:
    ssh = light.ssh
    options = f"-o UserKnownHostsFile={ssh['ssh_known_hosts_file']} -o ControlMaster=auto -o ControlPersist=60s"
    common = {
        "ansible_user": ssh["ssh_user"],
        "ansible_ssh_private_key_file": ssh["ssh_key"],
        "ansible_ssh_common_args": options,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    named = {host.name: {"ansible_host": host.address} for host in light.hosts}
    path = folder / "hosts.json"
    path.write_text(json.dumps({"sparks": {"hosts": named, "vars": common}}))
    return path


def write_variables(folder: Path) -> Path:
    """What the playbook is told: the same files, image and unit that the deploy compares."""
    with tarfile.open(folder / "host.tar") as archive:
        members = archive.getmembers()
        models = [one for one in members if one.isfile() and "/models/" in one.name]
        (release_json,) = (one for one in members if one.name.endswith("/release.json") and one.isfile())
        release = json.load(archive.extractfile(release_json) or io.BytesIO())
    unit = folder / "sparkfleet-serve.service"
    unit.write_text(release["unit"])
    variables = {
        "folders": ["/var/lib/sparkfleet", "/var/lib/sparkfleet/releases", "/var/lib/sparkfleet/models"],
        "weight_files": [{"path": f"/{one.name}", "size": one.size} for one in models],
        "image": release["image"]["reference"],
        "unit_file": str(unit),
    }
    path = folder / "variables.json"
    path.write_text(json.dumps(variables))
    return path


def ensure_ansible() -> Path:
    """An environment of its own, because Ansible is a peer here and no dependency."""
    if not (ANSIBLE_ENV / "bin/ansible-playbook").exists():
        ANSIBLE_ENV.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(ANSIBLE_ENV)], check=True, timeout=120)
        install = [str(ANSIBLE_ENV / "bin/pip"), "install", "--quiet", *ANSIBLE_PACKAGES]
        subprocess.run(install, check=True, timeout=600)
    return ANSIBLE_ENV


def mitogen() -> list[str]:
    script = "import ansible_mitogen, os; print(os.path.dirname(ansible_mitogen.__file__))"
    found = subprocess.run(
        [str(ANSIBLE_ENV / "bin/python"), "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return [f"ANSIBLE_STRATEGY_PLUGINS={found.stdout.strip()}/plugins/strategy", "ANSIBLE_STRATEGY=mitogen_linear"]


def report(count: int, series: dict[str, Series]) -> list[str]:
    """Return the page's lines."""
    lines = [
        "",
        f"### {count} hosts",
        "",
        "| command | wall, s | client CPU, s | peak MiB | remote commands a host |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {one.cells()} | {max(one.remote_commands) / count:.1f} |"
        for name, one in series.items()
        if one.wall
    ]
    lines += ["", "| ratio | hosts with processors of their own | all on this machine | goal |", "|---|---|---|---|"]
    for name, against, goal in (("no-op", "connect", "at most 1.5"), ("dry", "no-op", "at most 2")):
        if name + OWN not in series:
            continue
        own = ratio(series[name + OWN], series[against if against == "connect" else against + OWN])
        shared = f"{ratio(series[name], series[against]):.2f}" if name in series else "–"
        lines.append(f"| {name} / {against} | {own:.2f} | {shared} | {goal} |")
    if "sync" in series:
        own, here = (median(series[f"sync{how}"].wall) - median(series["connect"].wall) for how in (OWN, ""))
        lines.append(f"| sync − connect, s a host | {own / count:.2f} | {here / count:.2f} | at most 0.3 |")
    for peer in PEERS:
        if peer in series:
            wall = f"{ratio(series[peer], series['no-op']):.1f}"
            cpu = median(series[peer].cpu) / median(series["no-op"].cpu)
            lines.append(f"| {peer} / no-op | – | {wall}; client CPU {cpu:.1f} | at least 20 |")
    return lines
