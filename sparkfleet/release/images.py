"""Where an image is pulled from, and with which credentials."""

from __future__ import annotations

import base64
from collections.abc import Mapping

DOCKER_HUB = "docker.io"


def split(repository: str) -> tuple[str, str]:
    """Return registry and path. Docker takes a first part for a registry only when it looks like a host's name."""
    first, slash, rest = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return DOCKER_HUB, repository


def source(mirrors: Mapping[str, str], repository: str, digest: str) -> str:
    """Return what to pull, with its registry: the digest from where it lives, or from the mirror that stands in."""
    registry, path = split(repository)
    host = mirrors.get(registry, registry).removeprefix("http://").removeprefix("https://").rstrip("/")
    return f"{host}/{path}@{digest}"


def credentials(mirrors: Mapping[str, str], repository: str, environment: Mapping[str, str]) -> str | None:
    """Return the environment's credentials as Docker writes them; a mirror without TLS is not offered any."""
    user, password = (environment.get(f"SPARKFLEET_REGISTRY_{key}") for key in ("USER", "PASSWORD"))
    open_mirror = mirrors.get(split(repository)[0], "").startswith("http://")
    return base64.b64encode(f"{user}:{password}".encode()).decode() if user and password and not open_mirror else None
