"""A release as a plain Docker command or Compose file of one's own, without units, gates or a way back.

No secret stands in either: an API key is read from the file that the release names.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from sparkfleet.catalog.contract import is_option
from sparkfleet.interop.to_sparkrun import pulled_as
from sparkfleet.release.release import STATE, Compiled
from sparknode.state.release import UNLOCKED, Mount

FOLDER = "SPARKFLEET_DATA"
# The options of an engine that Compose has a key for; one without a value is switched on.
_COMPOSE_KEYS = {"--init": "init", "--shm-size": "shm_size"}


def run_script(compiled: Compiled) -> str:
    """Return a shell script that starts what the release serves."""
    release = compiled.release
    container = release.container
    lines = ["docker run --rm", f"--name {container.name}", shlex.join(container.gpu)]
    lines += ["--ipc host --network host --log-driver local", *_options(compiled)]
    if release.api_key_file:
        lines.append(f"--env-file {shlex.quote(release.api_key_file)}")
    lines += [f"-e {shlex.quote(f'{name}={value}')}" for name, value in container.env.items()]
    for mount in container.mounts:
        lines.append(f'-v "${FOLDER}{_below(mount)}"')
    lines += [f"--entrypoint {shlex.quote(container.entrypoint)}", shlex.quote(pulled_as(compiled))]
    lines += _flag_lines(container.args)
    folder = f'"${{{FOLDER}:-$HOME/sparkfleet}}"'
    head = ["#!/bin/sh", *(f"# {line}" for line in _about(compiled, folder)), "set -eu", f"{FOLDER}={folder}"]
    return "\n".join([*head, " \\\n  ".join(lines)]) + "\n"


def compose_file(compiled: Compiled) -> str:
    """Return a Compose file with one service that serves what the release serves."""
    release = compiled.release
    container = release.container
    devices = list(container.gpu[1:2])
    device = {"driver": "cdi", "device_ids": devices} if release.cdi else {"driver": "nvidia", "count": "all"}
    service: dict[str, Any] = {
        "image": _literal(pulled_as(compiled)),
        "container_name": container.name,
        "entrypoint": [container.entrypoint],
        "command": [_literal(word) for word in container.args],
        "ipc": "host",
        "network_mode": "host",
        **_compose_options(compiled),
        "environment": {name: _literal(value) for name, value in container.env.items()},
        **({"env_file": [release.api_key_file]} if release.api_key_file else {}),
        "volumes": [f"${{{FOLDER}:-./sparkfleet}}{_below(mount)}" for mount in container.mounts],
        "deploy": {"resources": {"reservations": {"devices": [{**device, "capabilities": ["gpu"]}]}}},
        "logging": {"driver": "local"},
        "stop_grace_period": f"{release.timing.docker_stop_s}s",
    }
    head = "".join(f"# {line}\n" for line in _about(compiled, f"${{{FOLDER}:-./sparkfleet}}"))
    document = {"services": {"serve": service}}
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def _options(compiled: Compiled) -> list[str]:
    options = compiled.recipe.engine.docker_options
    return [shlex.join(options)] if options else []


def _compose_options(compiled: Compiled) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in compiled.recipe.engine.docker_options:
        if is_option(word):
            found[_COMPOSE_KEYS[word]] = True
        else:
            found[list(found)[-1]] = word
    return found


def _below(mount: Mount) -> str:
    return f"{mount.source.removeprefix(str(STATE))}:{mount.target}{':ro' if mount.read_only else ''}"


def _flag_lines(words: Sequence[str]) -> list[str]:
    """Join each flag with its values."""
    lines: list[list[str]] = [[]]
    for word in words:
        if is_option(word):
            lines.append([])
        lines[-1].append(word)
    return [shlex.join(line) for line in lines if line]


def _literal(text: str) -> str:
    """Compose fills variables in every text; a doubled dollar sign is a plain one."""
    return text.replace("$", "$$")


def _about(compiled: Compiled, folder: str) -> list[str]:
    choice, release = compiled.recipe.choice, compiled.release
    lines = [f"{choice.model} with image {choice.image_tag} and profile {choice.profile}, as a container of your own:"]
    lines.append("nothing checks the host, waits for memory, tries the engine or takes a bad start back.")
    for row in release.artefacts:
        pinned = "" if row.commit == UNLOCKED else f" --revision {row.commit}"
        place = f"{folder}/models/{row.repo}/{row.commit}"
        lines.append(f"  hf download {row.repo}{pinned} --local-dir {place}")
    key = compiled.recipe.engine.key_variable
    if release.api_key_file is None:
        more = f": give the container an env file with a line {key}=… to ask for a key" if key else ""
        lines.append(f"Anyone who can reach its port can use it{more}.")
    return lines
