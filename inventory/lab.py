"""The lab's hosts, from the file that `make lab-up` wrote: booted machines on this computer with simulated hardware."""

import json as _json
import os as _os
import platform as _platform
from pathlib import Path as _Path

# A second lab on the same machine has a number and its own folder.
_number = _os.environ.get("SPARKFLEET_LAB_NUMBER", "0")
_lab = f".lab-{_number}" if _number != "0" else ".lab"
_state_file = _Path(__file__).resolve().parent.parent / _lab / "state.json"
if not _state_file.exists():
    raise SystemExit(f"refused: the lab is not up ({_lab}/state.json is missing); next: make lab-up NODES=4")
_state = _json.loads(_state_file.read_text())

_data = {
    "ssh_user": _state["user"],
    "ssh_key": _state["key"],
    "ssh_known_hosts_file": _state["known_hosts"],
    "ssh_strict_host_key_checking": "yes",
    "hardware": "lab-x86" if _platform.machine() == "x86_64" else "lab-arm",
    "catalog_overlays": ["tests/lab/catalog"],
    "lock_file": f"{_lab}/fleet.lock.json",
    "artefact_cache": f"{_lab}/artefacts",
    # The lab's package index, from which seeds install their download tool, runs only for the case that needs it.
    "fetch_on": "controller",
    "hub_endpoint": _state["hub"],
    "registry_mirrors": {"ghcr.io": f"http://{_state['registry']}"},
    "allow_unauthenticated": "the lab is reachable from this computer alone",
    "terms_accepted": {"gemma4-26b-a4b-nvfp4": {"by": "the lab serves toy weights", "on": "2026-11-01"}},
    "profile": "lab-agentic",
    "lease_ttl_s": 15,
}
if _state["engine"] == "vllm":
    _data |= {"model": "lab-spelling", "profile": "lab-real", "image_tag": "lab-vllm-cpu-0.32.0"}

_hosts = [
    (
        _host["name"],
        {
            **_data,
            "ssh_hostname": _host["address"],
            "gpu_injection": "cdi" if _host["gpu_injection"] == "cdi" else "gpus",
        },
    )
    for _host in _state["hosts"]
]

canary = _hosts[:1]
fleet = _hosts[1:]
