"""Releases, manifests and staged hosts for the tests, made without the code under test."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from sparknode.base.paths import Paths

COMMIT = "a" * 40
REPO = "acme/tiny-model"
FILES = {"config.json": b'{"model_type": "gemma4"}', "model.safetensors": b"weights" * 100, "sub/tokenizer.json": b"{}"}
# What a release asks of the watchdog, unless a test sets it otherwise.
WATCH: dict[str, Any] = {
    "enabled": True,
    "restart_on_collapse": False,
    "min_acceptance_rate": 0.2,
    "window_drafts": 200,
    "stalled_s": 120,
    "slow_factor": 3,
    "wedged_power_w": 30,
    "min_available_gib": 4,
    "max_stall_percent": 0.1,
    "forget_s": 3600,
    "max_restarts": 1,
}


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def manifest(files: dict[str, bytes] | None = None) -> dict[str, Any]:
    entries = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "git_blob_sha1": None}
        for path, data in sorted((files or FILES).items())
    ]
    entries[0]["sha256"] = None
    first = sorted((files or FILES).items())[0][1]
    entries[0]["git_blob_sha1"] = hashlib.sha1(b"blob %d\0" % len(first) + first).hexdigest()
    return {"repo": REPO, "commit": COMMIT, "files": entries}


def manifest_sha256(document: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(document["files"])).hexdigest()


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A release document under the id that its content has."""
    content = {key: value for key, value in document.items() if key != "id"}
    return {**content, "id": hashlib.sha256(canonical(content)).hexdigest()[:16]}


def release(tag: str = "new", **changes: Any) -> dict[str, Any]:
    """A whole release; `section__key=value` changes one key."""
    digest = "sha256:" + hashlib.sha256(tag.encode()).hexdigest()
    folder = f"/var/lib/sparkfleet/models/{REPO}/{COMMIT}"
    document: dict[str, Any] = {
        "schema": 1,
        "host_kind": {"hardware": "gb10"},
        "model": "gemma4-26b-a4b-nvfp4",
        "profile": "agentic",
        "image_tag": tag,
        "image_line": None,
        "engine": {"kind": "vllm", "version": "0.22.1"},
        "image": {
            "repository": "registry.example/engine",
            "digest": digest,
            "image_ids": [digest.replace("sha256:", "sha256:c0")[:71]],
            "architecture": "arm64",
            "reference": f"registry.example/engine:{digest.replace(':', '-')}",
        },
        "artefacts": [
            {
                "role": "target",
                "repo": REPO,
                "commit": COMMIT,
                "host_path": folder,
                "container_path": "/models/gemma4",
                "manifest_sha256": manifest_sha256(manifest()),
            }
        ],
        "container": {
            "name": "sparkfleet-serve",
            "entrypoint": "vllm",
            "args": ["serve", "/models/gemma4", "--port", "8000"],
            "env": {"VLLM_FLAG": tag},
            "mounts": [{"source": folder, "target": "/models/gemma4", "read_only": True}],
            "gpu": ["--gpus", "all"],
        },
        "serve": {
            "port": 8000,
            "served_names": ["gemma4", "gemma4-fast"],
            "max_model_len": 4096,
            "model_root": "/models/gemma4",
            "drafter_backend": "flash_attn",
            "prefix_caching": True,
            "speculative": True,
        },
        "memory": {"utilization": 0.8},
        "timing": {
            "drain_s": 30,
            "shutdown_timeout_s": 60,
            "docker_stop_s": 80,
            "unit_stop_s": 100,
            "memory_wait_s": 300,
            "load_deadline_s": 1800,
            "request_timeout_s": 120,
            "soak_s": 30,
            "soak_interval_s": 10,
        },
        "gates": {
            "short": {"max_tokens": 256, "min_acceptance_rate": 0.3, "min_mean_acceptance_length": 3.0},
            "long": {
                "prompt_tokens": 2500,
                "max_tokens": 128,
                "min_acceptance_rate": 0.2,
                "min_mean_acceptance_length": None,
            },
        },
        "api_key_file": None,
        "unit": f"[Service]\nExecStart=docker run {tag}\n[Install]\nWantedBy=multi-user.target\n",
    }
    for name, value in changes.items():
        *sections, key = name.split("__")
        node = document
        for section in sections:
            node = node[section]
        node[key] = value
    return sealed(copy.deepcopy(document))


def write_model(folder: Path, files: dict[str, bytes] | None = None) -> None:
    for path, data in (files or FILES).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def put_release(paths: Paths, document: dict[str, Any]) -> str:
    """Stage a release by hand: its folder, its model and the model's stamp."""
    folder = paths.release_dir(document["id"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "release.json").write_text(json.dumps(document))
    (folder / "sparkfleet-serve.service").write_text(document["unit"])
    model = paths.data / "models" / REPO / COMMIT
    if not model.exists():
        write_model(model)
    stamp = {
        "manifest_sha256": manifest_sha256(manifest()),
        "files": [{"path": entry["path"], "size": entry["size"]} for entry in manifest()["files"]],
    }
    (model.parent / f"{COMMIT}.verified.json").write_text(json.dumps(stamp))
    return str(document["id"])


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def point(paths: Paths, name: str, release_id: str) -> None:
    link(paths.data / name, f"releases/{release_id}")


def container_of(document: dict[str, Any], container_id: str = "c1") -> dict[str, Any]:
    """What `docker container inspect` shows of a container that is exactly the release's."""
    spec = document["container"]
    return {
        "Id": container_id,
        "Path": spec["entrypoint"],
        "Args": list(spec["args"]),
        "Image": document["image"]["image_ids"][0],
        "State": {"Running": True, "Status": "running", "StartedAt": "2026-11-23T10:00:00.000000000Z"},
        "Config": {"Env": [f"{key}={value}" for key, value in spec["env"].items()] + ["PATH=/usr/bin", "SECRET=key"]},
        "Mounts": [
            {
                "Type": "bind",
                "Source": mount["source"],
                "Destination": mount["target"],
                "RW": not mount["read_only"],
            }
            for mount in spec["mounts"]
        ],
    }
