"""What Docker says of the container and the image, and how that differs from what a release says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sparknode.base import dockerd
from sparknode.base.parse import json_object
from sparknode.base.process import Completed
from sparknode.base.system import System
from sparknode.host import imagestore
from sparknode.state.release import Container, Mount, Release

INSPECT_S = 20.0
REMOVE_S = 120.0
EXEC_S = 10.0


@dataclass(frozen=True)
class Lookup:
    """One object of Docker's: `found`, or neither for «there is none», or `error` when Docker did not say."""

    found: dict[str, Any] | None = None
    error: str | None = None

    def text(self, *keys: str) -> str | None:
        """A text inside the object, by the path of its keys."""
        value: Any = self.found
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, str) else None


def read_lookup(done: Completed) -> Lookup:
    """What Docker says of one object; «No such …» is an answer, a silent daemon is not."""
    if done.rc == dockerd.GONE and "no such" in done.stderr.lower():
        return Lookup()
    found = (json_object(done.stdout) if done.ok else {}) or None
    return Lookup(found, None if found else done.why)


def container_argv(name: str) -> tuple[str, ...]:
    return dockerd.question(f"/containers/{name}/json")


def container(system: System, name: str) -> Lookup:
    return read_lookup(system.run(container_argv(name), INSPECT_S))


def image(system: System, name: str) -> Lookup:
    return read_lookup(system.run(dockerd.question(f"/images/{name}/json"), INSPECT_S))


def remove(system: System, name: str) -> Completed:
    return system.run(["docker", "rm", "-f", name], REMOVE_S)


def remove_image(system: System, reference: str) -> str | None:
    """Take an image away, under this tag and every name of its digest; why it is still here, or None.

    An image that came from a mirror keeps the mirror's name of its digest besides the tag.
    """
    found = image(system, reference).found or {}
    done = system.run(["docker", "image", "rm", reference, *texts(found.get("RepoDigests"))], REMOVE_S)
    left = image(system, str(found.get("Id", reference)))
    return done.why if left.found or left.error else None


def gpu_argv(name: str) -> list[str]:
    return ["docker", "exec", name, "nvidia-smi", "-L"]


def sees_gpu(system: System, name: str) -> tuple[bool | None, str]:
    """Whether the GPU is seen inside a container (None: that can't be told), and what was said."""
    return read_gpu(system.run(gpu_argv(name), EXEC_S))


def read_gpu(done: Completed) -> tuple[bool | None, str]:
    said = " ".join((done.stdout + done.stderr).split())[:200]
    if done.ok and "GPU 0" in done.stdout:
        return True, "the container sees the GPU"
    # These are the driver's own words; anything else is Docker's, or an image without the program.
    if re.search(r"NVML|No devices|couldn't communicate|Unknown Error", said):
        return False, f"the container does not see the GPU: {said}; restart it"
    return None, f"nvidia-smi could not be asked within the container: {done.why}"


# Docker's client where it reaches no daemon, in words that changed with its version 29; it ends with 125 there too.
_SILENT = re.compile("(?i)cannot connect to the docker daemon|failed to connect to the docker api|error during connect")
# `docker run`'s own exit codes: no container, and a command in it that can't be run or is not there (docs.docker.com).
_NOT_STARTED = {125, 126, 127}


def hands_gpu(system: System, release: Release) -> tuple[bool | None, str]:
    """Whether a container of the release's image gets the GPU, tried with the image's own nvidia-smi."""
    # A Docker without its docker-init (its snap: docker-snap#139) could not start the engine either.
    container = release.container
    trial = [*["--init"] * ("--init" in container.options), *container.gpu, "--entrypoint", "nvidia-smi"]
    argv = ["docker", "run", "--rm", *trial, release.image.reference, "-L"]
    return read_trial(system.run(argv, INSPECT_S))


def read_trial(done: Completed) -> tuple[bool | None, str]:
    """What a trial container shows. Whatever Docker answers is an answer; only silence leaves it open (None)."""
    if done.timed_out or done.unstarted or _SILENT.search(done.stderr):
        return None, f"whether a container of it gets the GPU could not be asked: {done.why}"
    if done.rc in _NOT_STARTED:
        said = " ".join(done.stderr.split()) or "it did not report why"
        return False, f"Docker can't start a container of it with the GPU (exit code {done.rc}): {said[:400]}"
    seen, said = read_gpu(done)
    return (True, said) if seen else (False, said if seen is False else f"nvidia-smi shows no GPU in it: {done.why}")


def running(found: Lookup) -> bool:
    state = found.found.get("State") if found.found else None
    return isinstance(state, dict) and state.get("Running") is True


def texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def is_image_of(system: System, release: Release, found: Lookup) -> bool:
    """Is this image the one whose digest the release pins? The id differs between Docker's two image stores."""
    image_id = found.text("Id")
    if image_id is None or image_id in release.image.image_ids:
        return image_id is not None
    digests = texts(found.found.get("RepoDigests")) if found.found else []
    if any(digest.endswith("@" + release.image.pinned) for digest in digests):
        return True
    return imagestore.config_of(system, image_id, release.image.architecture) in release.image.image_ids


def is_whole(found: Lookup) -> bool:
    """Does Docker have every part of this image?

    A pull into containerd's store leaves out a packed layer that stands unpacked there already, out of an archive or
    under a container (github.com/moby/moby/issues/49784). Docker shows no architecture of such an image, yet runs it.
    """
    return bool(found.text("Architecture"))


def described(system: System, found: Lookup, architecture: str) -> tuple[str | None, list[str]]:
    """The architecture and the entrypoint of an image; of one that is not whole, by its own configuration."""
    shown = found.found or {}
    made_for, config = shown.get("Architecture"), shown.get("Config")
    if not is_whole(found):
        own = imagestore.configuration(system, str(found.text("Id")), architecture)
        made_for, config = own.get("architecture"), own.get("config")
    entrypoint = config.get("Entrypoint") if isinstance(config, dict) else None
    return (made_for if isinstance(made_for, str) else None), texts(entrypoint)


def unstartable(system: System, reference: str, found: Lookup) -> str | None:
    """Why no container can be made of an image that is here; None where one can.

    Of an image that is not whole the unpacked layers may be gone, too, which only an attempt shows.
    """
    if is_whole(found):
        return None
    name = f"sparkfleet-trial-{os.getpid()}"
    done = system.run(["docker", "create", "--name", name, "--pull", "never", reference], REMOVE_S)
    remove(system, name)
    return None if done.ok else done.why


def drift(system: System, release: Release, found: Lookup) -> list[str]:
    """Each way in which the container is not what the release says, as a sentence; none means it is."""
    if found.error:
        return [f"container {release.container.name}: Docker did not report what it runs ({found.error})"]
    if found.found is None:
        return [f"container {release.container.name}: there is none"]
    texts = [] if running(found) else [f"container {release.container.name}: it is not running"]
    texts += _command_drift(release.container, found.found)
    texts += _env_drift(release.container, found.found)
    texts += _mount_drift(release.container, found.found)
    return texts + _image_drift(system, release, found)


def _command_drift(wanted: Container, found: dict[str, Any]) -> Iterator[str]:
    if found.get("Path") != wanted.entrypoint:
        yield f"entrypoint: the container runs {found.get('Path')!r}, the release has {wanted.entrypoint!r}"
    args, expected = texts(found.get("Args")), list(wanted.args)
    if args == expected:
        return
    extra = [arg for arg in args if arg not in expected]
    missing = [arg for arg in expected if arg not in args]
    if extra or missing:
        yield f"arguments: the container has {extra or 'nothing'} where the release has {missing or 'nothing'}"
    else:
        yield "arguments: the container has the release's arguments in another order or number"


def _env_drift(wanted: Container, found: dict[str, Any]) -> Iterator[str]:
    config = found.get("Config")
    pairs = texts(config.get("Env")) if isinstance(config, dict) else []
    env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    for key, value in sorted(wanted.env.items()):
        if key not in env:
            yield f"environment: {key} is not set, the release has {value!r}"
        elif env[key] != value:
            yield f"environment: {key} is {env[key]!r}, the release has {value!r}"


def _mount_drift(wanted: Container, found: dict[str, Any]) -> Iterator[str]:
    mounts = found.get("Mounts")
    # Volumes that the image itself declares are not the release's business; bind mounts are.
    binds = {
        Mount(str(mount.get("Source")), str(mount.get("Destination")), mount.get("RW") is False)
        for mount in (mounts if isinstance(mounts, list) else [])
        if isinstance(mount, dict) and mount.get("Type") == "bind"
    }
    expected = set(wanted.mounts)
    for mount in sorted(expected - binds, key=str):
        yield f"mount: {mount} is missing"
    for mount in sorted(binds - expected, key=str):
        yield f"mount: {mount} is not in the release"


def _image_drift(system: System, release: Release, found: Lookup) -> list[str]:
    runs = found.text("Image") or "no image"
    if runs in release.image.image_ids or is_image_of(system, release, image(system, runs)):
        return []
    return [f"image: the container runs {runs}, the release has {' or '.join(release.image.image_ids)}"]
