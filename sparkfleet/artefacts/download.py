"""Weights on the controller: downloaded once at the locked commit, every byte proven, then sent to the nodes.

The download runs in a process of its own (`python -m sparknode fetch`), because the Hub client's native threads would
stall every host's greenlet.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gevent.lock import BoundedSemaphore

from sparkfleet import ROOT
from sparkfleet.errors import FleetError
from sparkfleet.release import contents
from sparkfleet.release.weights import unchecked
from sparkfleet.rollout.fleet_run import HostPlan
from sparknode.base.paths import Paths
from sparknode.base.shape import written
from sparknode.models.manifest import Manifest
from sparknode.models.requests import FetchRequest

# rsync ends a transfer that has been silent for so long.
SILENCE_S = 60
_one_fetch = BoundedSemaphore(1)
_senders: dict[int, BoundedSemaphore] = {}


def manifests(plan: HostPlan) -> list[Manifest]:
    """Return what a node needs to prove each model of its release: its files with sizes and hashes."""
    return [plan.lock.repos[one.repo].manifest(one.repo) for one in plan.release.artefacts]


def require_content(plan: HostPlan, repo: str) -> None:
    """Refuse to bring files whose content neither the lock nor the Hub shows to be the catalogue's; raises LockError.

    A lock of an earlier version says nothing of it, nor does one that was made with other rows of the catalogue.
    """
    recipe = plan.compiled.recipe
    expected = unchecked(plan.lock, recipe.model, recipe.drafter).get(repo)
    if expected:
        contents.require(plan.lock, repo, expected, plan.settings.hub_endpoint)


def reserve(plan: HostPlan) -> int:
    """Return the bytes that must stay free on a host's disk."""
    return int(plan.compiled.recipe.hardware.limits.disk_reserve_bytes)


def fetch_request(plan: HostPlan, manifest: Manifest, python: str | None = None) -> str:
    """Return what `sparknode fetch` reads. It holds HF_TOKEN, where that is set, and goes over standard input."""
    limit = plan.settings.fetch_limit_mb_s
    wanted = FetchRequest(
        manifest,
        reserve(plan),
        endpoint=plan.settings.hub_endpoint or os.environ.get("HF_ENDPOINT"),
        token=os.environ.get("HF_TOKEN"),
        limit_bytes_s=limit * 1e6 if limit else None,
        requirements=(ROOT / "catalog" / "hub-tool.txt").read_text(encoding="utf-8"),
        tool_index=plan.settings.tool_index,
        python=python,
    )
    return json.dumps(written(wanted))


def ensure_fetched(plan: HostPlan, manifest: Manifest) -> Path:
    """Return the controller's folder with the proven files, downloading what is missing.

    Raises FleetError with the downloader's last words.
    """
    root = ROOT / plan.settings.artefact_cache
    with _one_fetch:
        fetch = subprocess.run(
            [sys.executable, "-m", "sparknode", "--root", str(root), "fetch"],
            input=fetch_request(plan, manifest, sys.executable),
            text=True,
            cwd=ROOT,
            check=False,
        )
    if fetch.returncode != 0:
        raise FleetError(
            f"{manifest.repo} at {manifest.commit[:12]} was not fetched (exit code {fetch.returncode})",
            f"{len(manifest.files)} files",
            "read the lines above",
        )
    return Paths(root).model_dir(manifest.repo, manifest.commit)


def require_sending(name: str, data: Mapping[str, Any]) -> None:
    """Refuse a host that pyinfra reaches and rsync could not; raises FleetError, and is asked before any download."""
    if not shutil.which("rsync"):
        raise FleetError("rsync is not installed on this machine", "rsync", "apt install rsync")
    for key in ("ssh_password", "ssh_key_password"):
        if data.get(key):
            raise FleetError(
                f"{name} is logged in to with {key}, which rsync cannot be given",
                "a key without a passphrase, or one in the agent",
                "ssh-add the key, or let the hosts fetch: fetch_on = 'seeds'",
            )


def send(plan: HostPlan, data: Mapping[str, Any], repo: str, folder: Path) -> None:
    """Send a repository's files to the node's incoming folder with rsync over SSH; raises FleetError."""
    argv = rsync_argv(plan.entry.name, data, f"{folder}/", f"/var/lib/sparkfleet/incoming/{repo}/{folder.name}/")
    semaphore = _senders.setdefault(plan.settings.sync_parallel, BoundedSemaphore(plan.settings.sync_parallel))
    with semaphore:
        sent = subprocess.run(argv, text=True, capture_output=True, check=False)
    if sent.returncode != 0:
        raise FleetError(
            f"rsync of {repo} to {plan.entry.name} ended with {sent.returncode}: {sent.stderr.strip()[-400:]}",
            "exit code 0",
            "fix what it names and run the same command again: what arrived is kept",
        )


def rsync_argv(name: str, data: Mapping[str, Any], source: str, target: str) -> list[str]:
    """Return rsync's command line to a folder of a host, reached by what pyinfra's SSH connector is told."""
    address = str(data.get("ssh_hostname") or name)
    # A colon ends the host for rsync, and two of them are its daemon.
    address = f"[{address}]" if ":" in address else address
    user = f"{data['ssh_user']}@" if data.get("ssh_user") else ""
    return [
        *("rsync", "--recursive", "--partial", "--mkpath", "--chmod=D755,F644", f"--timeout={SILENCE_S}"),
        *("--rsh", shlex.join(_ssh(data)), "--rsync-path", "sudo -n rsync", source, f"{user}{address}:{target}"),
    ]


def _ssh(data: Mapping[str, Any]) -> list[str]:
    options = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]
    if data.get("ssh_config_file"):
        options += ["-F", str(data["ssh_config_file"])]
    if data.get("ssh_port"):
        options += ["-p", str(data["ssh_port"])]
    if data.get("ssh_key"):
        options += ["-i", str(data["ssh_key"]), "-o", "IdentitiesOnly=yes"]
    if data.get("ssh_known_hosts_file"):
        # ssh splits this option's value at blanks, as its configuration file does, unless it is quoted.
        options += ["-o", f'UserKnownHostsFile="{data["ssh_known_hosts_file"]}"']
    if data.get("ssh_strict_host_key_checking"):
        options += ["-o", f"StrictHostKeyChecking={data['ssh_strict_host_key_checking']}"]
    return options
