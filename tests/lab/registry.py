"""A real registry on the lab's bridge: real tags, digests, pulls and pull failures."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.lab.config import CACHE_DIR, LAB_DIR, REGISTRY, LabError
from tests.lab.run import run

STORAGE = CACHE_DIR / "registry"
CONFIG = f"""\
version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: {STORAGE}
http:
  addr: {REGISTRY}
"""


def command() -> list[str]:
    STORAGE.mkdir(parents=True, exist_ok=True)
    path = LAB_DIR / "registry.yml"
    path.write_text(CONFIG, encoding="utf-8")
    return ["docker-registry", "serve", str(path)]


def wait_ready(timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{REGISTRY}/v2/", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise LabError(
        f"the registry on {REGISTRY} did not answer within {timeout_s:.0f} s; see {LAB_DIR / 'registry.log'}"
    )


def push(layout: Path, reference: str, *, layout_tag: str | None = None) -> None:
    """Copy one image of an OCI layout (a folder, or a tar of one) into the registry as ``repository:tag``."""
    kind = "oci-archive" if layout.is_file() else "oci"
    source = f"{kind}:{layout}" + (f":{layout_tag}" if layout_tag else "")
    target = f"docker://{REGISTRY}/{reference}"
    options = ["--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
    run("skopeo", *options, source, target, timeout_s=600)


def digest(reference: str) -> str:
    """The digest that a tag points at now."""
    options = ["--insecure-policy", "inspect", "--tls-verify=false", "--format", "{{.Digest}}"]
    return run("skopeo", *options, f"docker://{REGISTRY}/{reference}").strip()
