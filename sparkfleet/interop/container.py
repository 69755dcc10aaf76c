"""From a container's options to the engine's own command line: the words of `docker run`, and what an image runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from sparkfleet.interop.confidential import is_harmless
from sparkfleet.interop.served import MARK, Mount, Served, cannot_carry
from sparkfleet.interop.shell import read_script
from sparkfleet.secrets import names_secret

# Options of `docker run` without a value.
_SWITCHES = frozenset(
    "-d --detach -i --interactive -t --tty --rm --init --privileged --read-only --no-healthcheck --oom-kill-disable -P"
    " --publish-all --sig-proxy --disable-content-trust --use-api-socket -q --quiet".split()
)
_SHORT = {"e": "--env", "v": "--volume", "p": "--publish", "u": "--user", "w": "--workdir", "l": "--label"}
_SHORT |= {"h": "--hostname", "m": "--memory", "c": "--cpu-shares", "a": "--attach"}
# What a release does in its own way, or what decides nothing about the engine.
_OURS = frozenset(
    "--detach --interactive --tty --rm --init --name --gpus --runtime --ipc --network --net --shm-size --restart"
    " --quiet --log-driver --log-opt --pull --label --label-file --hostname --workdir --health-cmd --health-interval"
    " --attach --health-retries --health-start-period --health-timeout --no-healthcheck --stop-timeout --stop-signal"
    " --platform --ulimit --network-alias --expose --annotation --cidfile --sig-proxy --disable-content-trust"
    " --oom-score-adj --detach-keys --health-start-interval --pids-limit --domainname".split()
)
# Said, because somebody may miss it: the host's side of a container.
_NOTED = frozenset(
    "--add-host --dns --dns-search --dns-option --cap-add --cap-drop --security-opt --pid --cpus --cpuset-cpus --memory"
    " --memory-swap --memory-swappiness --memory-reservation --cpu-shares --sysctl --group-add --env-file --cgroupns"
    " --uts --cpuset-mems --tmpfs --cgroup-parent --userns --cpu-period --cpu-quota --ip --link --blkio-weight".split()
)
_GPU_DEVICES = ("nvidia.com/gpu", "/dev/nvidia", "/dev/infiniband")
# Folders that hold what an engine downloads or compiles, which a release mounts itself or does not need.
_CACHES = re.compile(
    r"(/root|/home/[^/]+|/workspace)?/(\.cache|\.triton|\.nv|\.config|cache)(/.*)?|/tmp(/.*)?|/dev/shm|/data/hub"
)
_CODE = re.compile(r"/(site|dist)-packages/|^/(usr|opt|app|vllm-workspace|etc)(/|$)")
_PYTHON = re.compile(r"python3?(\.\d+)?")
_SHELLS = ("bash", "sh", "dash")
_PASSING = (
    "exec",
    "sudo",
    "nohup",
    "env",
    "nice",
    "ionice",
    "command",
    "stdbuf",
)
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)=")
_API_SERVER = "vllm.entrypoints.openai.api_server"


@dataclass
class Container:
    """A container as its options describe it."""

    image: str = ""
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    name: str = ""


def read_docker_run(words: list[str], values: Mapping[str, str]) -> Container:
    """Read what follows `docker run`; `values` are the variables that `-e NAME` takes over."""
    container, rest, noted = Container(), list(words), set[str]()
    while rest and rest[0].startswith("-") and rest[0] != "-":
        option, value = _option(rest)
        if option in ("--env", "-e"):
            name, equals, text = value.partition("=")
            container.env[name] = text if equals else values.get(name, f"{MARK}{{{name}}}")
        elif option == "--entrypoint":
            container.entrypoint = [value] if value else []
        elif option in ("--volume", "--mount"):
            container.mounts.append(_mount(option, value))
        elif option == "--publish":
            container.ports.append(value)
        elif option == "--name":
            container.name = value
        elif option == "--device":
            if not value.startswith(_GPU_DEVICES):
                noted.add(option)
        elif option in _NOTED:
            noted.add(option)
        elif option not in _OURS:
            found = f"docker run {option} {value}".strip()
            raise cannot_carry(
                f"{found}, and a release does not start containers so", f"no {option}", f"remove {option}"
            )
    if not rest:
        raise cannot_carry("docker run names no image", "docker run [OPTIONS] IMAGE [COMMAND]")
    container.image, container.command = rest[0], rest[1:]
    if noted:
        container.notes.append(f"Not carried over, of the container: {', '.join(sorted(noted))}")
    return container


def _option(rest: list[str]) -> tuple[str, str]:
    """Take the next option off, by its long name where it has one that is read here."""
    word = rest.pop(0)
    if word.startswith("--"):
        option, equals, value = word.partition("=")
        if equals or option in _SWITCHES:
            if option == "--privileged" and value != "false":
                return option, ""
            return ("--rm", "") if option == "--privileged" else (option, value)
        return option, rest.pop(0) if rest else ""
    letters = word[1:]
    while letters and letters[0] in "ditqP":
        letters = letters[1:]
    if not letters:
        return "--detach", ""
    option = _SHORT.get(letters[0], f"-{letters[0]}")
    attached = letters[1:].removeprefix("=")
    return option, attached or (rest.pop(0) if rest else "")


def _mount(option: str, value: str) -> Mount:
    if option == "--mount":
        parts = dict(part.partition("=")[::2] for part in value.split(","))
        source = parts.get("source", parts.get("src", ""))
        return Mount(source, parts.get("target", parts.get("dst", parts.get("destination", ""))))
    return mount_of(value)


def mount_of(text: str) -> Mount:
    """Read SOURCE:TARGET[:OPTIONS]; a reference in the source may hold colons of its own."""
    parts = re.split(r":(?![^{]*\})", text)
    return Mount(parts[0], parts[1]) if len(parts) > 1 else Mount("", parts[0])


def served(form: str, container: Container, name: str, image_entrypoint: Callable[[str], str | None]) -> Served:
    """Return what the container serves; raises SettingsError for what would change the engine and has no place."""
    program = container.entrypoint
    if not program:
        own = image_entrypoint(container.image)
        program = [own] if own and not (starts_engine(container.command) or is_shell(container.command)) else []
    inner = arguments_of([*program, *container.command], container.image, container.env)
    env = {**container.env, **inner.env}
    notes = [*container.notes, *inner.notes]
    _refuse_mounts(container.mounts, inner.words, notes)
    port = _value_of("--port", inner.words) or "8000"
    for published in container.ports:
        host_port = published.partition("/")[0].rsplit(":", 2)
        if len(host_port) > 1 and host_port[-2] != host_port[-1]:
            notes.append(f"It is published on port {host_port[-2]}; a release answers on the engine's own, {port}")
    return Served(
        form=form,
        name=container.name or name,
        words=inner.words,
        image=container.image,
        env=env,
        mounts=container.mounts,
        notes=notes,
    )


@dataclass
class Started:
    """What follows `vllm serve`, and the variables that a shell set in front of it."""

    words: list[str]
    env: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def starts_engine(words: list[str]) -> bool:
    return _after_program(words) is not None


def is_shell(words: list[str]) -> bool:
    """Say whether the words are a shell with a line of its own: `bash -lc '…'`."""
    return len(words) > 2 and PurePosixPath(words[0]).name in _SHELLS and bool(re.fullmatch(r"-\w*c", words[1]))


def _after_program(words: list[str]) -> list[str] | None:
    program = PurePosixPath(words[0]).name if words else ""
    if program == "vllm" and words[1:2] == ["serve"]:
        return words[2:]
    if _PYTHON.fullmatch(program) and words[2:3] == ["serve"] and PurePosixPath(words[1]).name == "vllm":
        return words[3:]
    if _PYTHON.fullmatch(program) and words[1:2] == ["-m"]:
        if words[2:3] == [_API_SERVER]:
            return words[3:]
        if words[2:4] == ["vllm.entrypoints.cli.main", "serve"]:
            return words[4:]
    return None


def arguments_of(words: list[str], image: str | None = None, values: Mapping[str, str] | None = None) -> Started:
    """Return the engine's arguments of a whole command, through a shell in front of it, which knows `values`."""
    if is_shell(words):
        return arguments_of_shell(words[2], values)
    after = _after_program(words)
    if after is not None:
        return Started(after)
    program = PurePosixPath(words[0]).name if words else ""
    if program in _SHELLS and words[1:2] in (["vllm"], ["serve"]):
        return arguments_of(words[1:], image, values)
    # The official image's entrypoint is the server itself: it is given the arguments alone.
    rest = words[1:] if program == "vllm" else words
    if image is not None and rest and (rest[0].startswith("-") or "/" in rest[0]) and not _SCRIPT.search(rest[0]):
        return Started(rest)
    begins = " ".join(words[:2])
    raise cannot_carry(f"the command starts with '{begins}'", "vllm serve", "import the command that it runs")


_SCRIPT = re.compile(r"\.(sh|py|bash)$|/bin/")


def arguments_of_shell(text: str, values: Mapping[str, str] | None = None) -> Started:
    """Read a shell line that does nothing but set variables and start the engine."""
    script = read_script(text, dict(values or {}))
    peeled = [unwrapped(command.words) for command in script.commands]
    commands = [words for words, _ in peeled]
    others = [words for words in commands if words and not starts_engine(words)]
    if len(commands) == 1 and others and script.commands[0].after == "\n":
        return arguments_of(others[0])
    if len(commands) != 1 or others or script.commands[0].after not in ("\n", ";", "&"):
        lines = "is a shell script of several lines" if "\n" in text.strip() else "needs a shell"
        doing = [command.after for command in script.commands if command.after not in ("\n", ";")]
        what = ", ".join([*doing, *(" ".join(words[:3]) for words in others)])
        raise cannot_carry(f"the command {lines}: {what or text.strip()}", "one `vllm serve` command")
    command = script.commands[0]
    if command.inside:
        raise cannot_carry(f"the command stands inside '{command.inside[0]}'", "one `vllm serve` command")
    started = arguments_of(commands[0])
    env = {**script.exported, **command.env, **peeled[0][1], **started.env}
    return Started(started.words, env, started.notes)


def unwrapped(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Drop what only passes a command on (exec, sudo, env), and return the variables that were set on the way."""
    rest, env = list(words), dict[str, str]()
    while rest:
        if PurePosixPath(rest[0]).name in _PASSING:
            rest.pop(0)
            while rest and rest[0].startswith("-"):
                rest.pop(0)
        elif found := _ASSIGNED.match(rest[0]):
            env[found[1]] = rest.pop(0)[found.end() :]
        else:
            break
    return rest, env


def _refuse_mounts(mounts: list[Mount], words: list[str], notes: list[str]) -> None:
    model = next((word for word in words if not word.startswith("-")), "")
    joined = " ".join(words)
    for mount in mounts:
        target = mount.target.rstrip("/") or "/"
        if model == target or model.startswith(f"{target}/") or _CACHES.fullmatch(target):
            continue
        if _CODE.search(f"{target}/"):
            found = f"a mount replaces {target} in the image"
            raise cannot_carry(found, "an image that needs no patch", "build it into an image, and name that one")
        if PurePosixPath(target).suffix and target in joined:
            found = f"the engine reads {target}, which is mounted from {mount.source}"
            raise cannot_carry(found, "files of the image or of the model's folder", "build it into an image")
        if f"{target}/" not in f"{joined}/" and f'{target}"' not in joined:
            notes.append(f"Not mounted: {target}, which the command does not name")


def _value_of(flag: str, words: list[str]) -> str | None:
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == flag:
            return after
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def secrets_noted(env: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """Leave out references to secrets, with a note; a node serves offline and gets its API key from a file."""
    kept = {}
    for name, value in env.items():
        if names_secret(name) and is_harmless(value):
            notes.append(f"{name} is left out: the controller downloads, and an API key is set with api_key_file")
        else:
            kept[name] = value
    return kept


def split_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise cannot_carry(f"the command cannot be read: {error}", "balanced quotes") from None
