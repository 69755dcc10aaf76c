"""Reading a shell script or a pasted line that starts one engine, with `docker run` or with `vllm serve`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

from sparkfleet.interop.confidential import refuse_secret, refuse_secret_words
from sparkfleet.interop.container import (
    Started,
    arguments_of,
    is_shell,
    read_docker_run,
    served,
    starts_engine,
    unwrapped,
)
from sparkfleet.interop.served import Served, cannot_carry
from sparkfleet.interop.shell import Command, Script, read_script

DOCKER = ("docker", "podman", "nerdctl")
_STARTS = re.compile(
    rf"\b({'|'.join(DOCKER)})\s+(container\s+)?(run|create)\b|\bvllm\s+serve\b|vllm\.entrypoints\.openai\.api_server"
)
# What people do around a start, and what a release does in its own way.
_AROUND = frozenset(
    "echo printf sleep mkdir curl wget cat tee date chmod chown ls hf huggingface-cli ps grep awk head tail jq seq kill"
    " sed pkill nvidia-smi logger source . eval hostname id whoami uname touch rm read clear which type nc ss".split()
)
_AROUND_DOCKER = frozenset(
    "rm stop kill pull logs ps inspect network volume wait start restart login image images info compose".split()
)
_INSTALLERS = frozenset("pip pip3 apt apt-get conda mamba patch make cmake".split())
_PATCHES = (["sed", "-i"], ["uv", "pip"], ["git", "apply"], ["python3", "-m", "pip"], ["python", "-m", "pip"])


def is_script(text: str) -> bool:
    return _STARTS.search(re.sub(r"\\[ \t]*\n", " ", text)) is not None


def starts_container(text: str) -> bool:
    return re.search(rf"\b({'|'.join(DOCKER)})\s", text) is not None


def read(
    text: str,
    name: str,
    wanted: str | None,
    image_entrypoint: Callable[[str], str | None],
    values: dict[str, str] | None = None,
) -> Served:
    """Read the one engine that a script starts, or the one whose container is named `wanted`."""
    lines = [re.sub(r"^\s*[$>]\s+", "", line) for line in text.splitlines() if not line.startswith("```")]
    script = read_script("\n".join(lines), values)
    for variable, value in script.values.items():
        refuse_secret(variable, value, "")
    notes: list[str] = []
    starts: list[tuple[Command, Served]] = []
    others: set[str] = set()
    for command in script.commands:
        for variable, value in command.env.items():
            refuse_secret(variable, value, "")
        refuse_secret_words(command.words, PurePosixPath(command.words[0]).name)
        one = _read_command(command, script, name, image_entrypoint)
        if one is None:
            others |= _others(command)
        else:
            starts.append((command, one))
    command, found = _the_one(starts, wanted)
    if any(block != "group" for block in command.inside):
        notes.append(f"The engine is started inside '{command.inside[-1]}', which a release cannot express")
    if command.after == "|":
        notes.append("What the engine prints is piped on; a release logs to the journal")
    if others:
        notes.append(f"The script also runs {', '.join(sorted(others))}, which no profile holds")
    return replace(found, notes=[*found.notes, *notes])


def _the_one(starts: list[tuple[Command, Served]], wanted: str | None) -> tuple[Command, Served]:
    named = [one for one in starts if wanted is None or one[1].name == wanted]
    if len(named) == 1:
        return named[0]
    names = ", ".join(one.name for _, one in starts)
    if not starts:
        raise cannot_carry("the script starts no engine", "one `docker run` or `vllm serve`", "check the file")
    found = f"the script starts {len(starts)} engines: {names}"
    raise cannot_carry(found, "one engine", "name its container with --service, or import each in a file of its own")


def _read_command(
    command: Command, script: Script, name: str, image_entrypoint: Callable[[str], str | None]
) -> Served | None:
    words, before = unwrapped(command.words)
    environment = {**command.env, **before}
    if (after := after_docker_run(words)) is not None:
        container = read_docker_run(after, {**script.values, **environment})
        return served(f"a {PurePosixPath(words[0]).name} run command", container, name, image_entrypoint)
    if words and (starts_engine(words) or (is_shell(words) and is_script(words[2]))):
        started: Started = arguments_of(words)
        env = {**script.exported, **environment, **started.env}
        return Served(form="a vllm serve command", name=name, words=started.words, env=env)
    return None


def after_docker_run(words: list[str]) -> list[str] | None:
    if not words or PurePosixPath(words[0]).name not in DOCKER:
        return None
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if "=" not in option and option in ("-c", "--context", "-H", "--host", "-l", "--log-level", "--config"):
            rest = rest[1:]
    if rest[:1] == ["container"]:
        rest = rest[1:]
    return rest[1:] if rest[:1] in (["run"], ["create"]) else None


def _others(command: Command) -> set[str]:
    """Return what no profile holds; raises SettingsError for what changes the engine or its image."""
    words, _ = unwrapped(command.words)
    program = PurePosixPath(words[0]).name if words else ""
    if program in DOCKER:
        sub = next((word for word in words[1:] if not word.startswith("-")), "")
        if sub in ("build", "buildx", "commit", "cp", "exec", "load", "import"):
            raise cannot_carry(f"{program} {sub} changes what runs", "a published image", f"remove {program} {sub}")
        return set() if sub in _AROUND_DOCKER else {f"{program} {sub}"}
    if program in _INSTALLERS or any(words[: len(start)] == start for start in _PATCHES):
        found = f"'{' '.join(words[:3])}' changes the engine or its files"
        raise cannot_carry(found, "an image that needs no patch", "build it into an image")
    return set() if program in _AROUND or not program else {program}
