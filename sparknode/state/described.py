"""What a person asks of a release, and what the plan of another one is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparknode.state.release import Gates, Memory, Release, Rotation, Timing, WatchRules


@dataclass(frozen=True)
class Described:
    """A release in a status; an older program leaves out what it does not know."""

    id: str
    image_tag: str
    model: str
    profile: str
    digest: str | None = None
    # The local tag that the container is started from.
    reference: str | None = None
    drafter_backend: str | None = None
    prefix_caching: bool | None = None
    # By repository.
    commits: dict[str, str] | None = None
    # The arguments of the entrypoint.
    args: tuple[str, ...] | None = None
    env: dict[str, str] | None = None
    # Docker's words that give the container its GPU.
    gpu: tuple[str, ...] | None = None
    # The arguments that the inventory changed, with their values.
    overrides: dict[str, Any] | None = None
    gates: Gates | None = None
    timing: Timing | None = None
    watch: WatchRules | None = None
    memory: Memory | None = None
    rotation: Rotation | None = None
    api_key_file: str | None = None


def described(release: Release) -> Described:
    return Described(
        id=release.id,
        image_tag=release.image_tag,
        model=release.model,
        profile=release.profile,
        digest=release.image.digest,
        reference=release.image.reference,
        drafter_backend=release.serve.drafter_backend,
        prefix_caching=release.serve.prefix_caching,
        commits={one.repo: one.commit for one in release.artefacts},
        args=release.container.args,
        env=release.container.env,
        gpu=release.container.gpu,
        overrides=release.overrides,
        gates=release.gates,
        timing=release.timing,
        watch=release.watch,
        memory=release.memory,
        rotation=release.rotation,
        api_key_file=release.api_key_file,
    )
