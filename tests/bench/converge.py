"""What it costs to hear that nothing needs doing: beside connecting alone, and beside Ansible with and without mitogen.

python -m tests.bench.converge [--hosts 4 16 64] [--rounds 5]
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.lighthosts import Light, LightHost, light_hosts
from tests.bench.measure import Series, interleaved, ratio
from tests.bench.snapshot import converged
from tests.lab.config import ROOT

PYINFRA = str(Path(sys.executable).parent / "pyinfra")
PLAYBOOK = Path(__file__).parent / "ansible" / "site.yml"
ANSIBLE_ENV = Path.home() / ".cache/sparkfleet/bench/ansible"
ANSIBLE_PACKAGES = ("ansible-core>=2.17,<2.20", "mitogen>=0.3.24,<0.4")
# With the probes answered after the time that a host of its own takes: what hosts do costs this machine nothing then.
OWN = ", own processors"
# Above this many hosts Ansible takes minutes a round, and its ratio only grows.
ANSIBLE_HOSTS = 16


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.bench.converge")
    options.add_argument("--hosts", type=int, nargs="+", default=[4, 16, 64])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--without-ansible", action="store_true")
    asked = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-converge-"))
    try:
        with converged(folder) as (snapshot, lock):
            for count in asked.hosts:
                with light_hosts(count, snapshot) as light:
                    ansible = count <= ANSIBLE_HOSTS and not asked.without_ansible
                    report(count, measure(folder, lock, light, asked.rounds, ansible=ansible))
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, lock: Path, light: Light, rounds: int, *, ansible: bool) -> dict[str, Series]:
    """Seconds of each way, all in one interleaved run."""
    hosts, ssh = light.hosts, light.ssh
    inventory = str(write_inventory(folder, lock, hosts, ssh))
    commands = {
        "connect": [PYINFRA, inventory, "exec", "--", "true"],
        "no-op": [PYINFRA, inventory, "deploy.py", "-y", "--chdir", str(ROOT)],
        "status": [PYINFRA, inventory, "tasks/status.py", "--chdir", str(ROOT)],
        "dry": [PYINFRA, inventory, "deploy.py", "--dry", "--chdir", str(ROOT)],
    }
    commands |= {f"{name}{OWN}": commands[name] for name in ("no-op", "dry", "status")}
    if ansible:
        playbook = [str(ensure_ansible() / "bin/ansible-playbook"), "-i", str(write_hosts(folder, hosts, ssh))]
        playbook += ["-f", str(len(hosts)), "-e", f"@{write_variables(folder)}", str(PLAYBOOK)]
        commands |= {"ansible": playbook, "mitogen": ["env", *mitogen(), *playbook]}
    settings = folder / "ansible.cfg"
    settings.write_text("[defaults]\n")
    common = {"PYINFRA_PROGRESS": "off", "ANSIBLE_PIPELINING": "True", "ANSIBLE_CONFIG": str(settings)}
    light.commands()
    return interleaved(
        commands, rounds, folder, lambda name: light.recorded(name.endswith(OWN)), light.commands, **common
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


def write_hosts(folder: Path, hosts: list[LightHost], ssh: dict[str, Any]) -> Path:
    options = f"-o UserKnownHostsFile={ssh['ssh_known_hosts_file']} -o ControlMaster=auto -o ControlPersist=60s"
    common = {
        "ansible_user": ssh["ssh_user"],
        "ansible_ssh_private_key_file": ssh["ssh_key"],
        "ansible_ssh_common_args": options,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    named = {host.name: {"ansible_host": host.address} for host in hosts}
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


def report(count: int, series: dict[str, Series]) -> None:
    print(
        f"\n{count} light hosts (sshd for real; their docker, systemctl and nvidia-smi repeat a real lab host's words)"
    )
    for name, one in series.items():
        print(f"  {name:24} {one.cells()}, {max(one.remote_commands) / count:.1f} commands a host")
    print(f"  {'ratio':24} all on this machine, hosts with processors of their own; goal")
    for name, against, goal in (("no-op", "connect", "at most 1.5"), ("dry", "no-op", "at most 2")):
        own = ratio(series[name + OWN], series[against if against == "connect" else against + OWN])
        print(f"  {name + ' / ' + against:24} {ratio(series[name], series[against]):.2f}, {own:.2f}; {goal}")
    for peer in ("ansible", "mitogen"):
        if peer in series:
            cpu = sum(series[peer].cpu) / sum(series["no-op"].cpu)
            wall = f"{ratio(series[peer], series['no-op']):.1f}, client CPU {cpu:.1f}"
            print(f"  {peer + ' / no-op':24} {wall}; at least 20")


if __name__ == "__main__":
    main()
