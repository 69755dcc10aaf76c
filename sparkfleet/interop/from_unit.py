"""Reading a systemd unit whose ExecStart starts one engine (systemd.service(5), systemd.syntax(7))."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from sparkfleet.interop import from_script
from sparkfleet.interop.confidential import refuse_secret, refuse_secret_words
from sparkfleet.interop.container import arguments_of, is_shell, read_docker_run, served, split_words, unwrapped
from sparkfleet.interop.from_script import DOCKER, after_docker_run, starts_container
from sparkfleet.interop.served import MARK, Served, cannot_carry

_SECTION = re.compile(r"^\[(Unit|Service|Install|Container|Pod)\]\s*$", re.MULTILINE)
_VARIABLE = re.compile(r"\$(\$|\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_SPECIFIER = re.compile(r"%([A-Za-z%])")
_HARMLESS = re.compile(rf"-?\S*/?({'|'.join(DOCKER)})\s+(rm|stop|kill|pull|network|volume|container)\b")


def is_unit(text: str) -> bool:
    return _SECTION.search(text) is not None


def read(text: str, name: str, image_entrypoint: Callable[[str], str | None]) -> Served:
    """Read the one command of a unit; the variables of the unit are its own, and the engine's where it gives them."""
    settings = _service(text)
    starts = settings.get("ExecStart", [])
    if len(starts) != 1:
        raise cannot_carry(f"the unit has {len(starts)} ExecStart", "one that starts an engine", "check the file")
    environment: dict[str, str] = {}
    for line in settings.get("Environment", []):
        for word in split_words(line):
            variable, _, value = word.partition("=")
            environment[variable] = _specified(value)
            refuse_secret(variable, environment[variable], "Environment=")
    notes = [
        f"Not carried over: {line}"
        for key in ("ExecStartPre", "ExecStartPost")
        for line in (f"{key}={_first(value)}" for value in settings.get(key, []) if not _HARMLESS.match(value))
    ]
    if "EnvironmentFile" in settings:
        notes.append("The variables of its EnvironmentFile are not in the unit: add them to env")
    words = _expanded(split_words(starts[0].lstrip("-@:+!|")), environment)
    refuse_secret_words(words, "ExecStart")
    words, before = unwrapped(words)
    if is_shell(words) and starts_container(words[2]):
        found = from_script.read(words[2], name, None, image_entrypoint, {**environment, **before})
        return replace(found, form="a systemd unit", name=name, notes=[*found.notes, *notes])
    after = after_docker_run(words)
    if after is not None:
        container = read_docker_run(after, {**environment, **before})
        found = served("a systemd unit", container, name, image_entrypoint)
        return replace(found, name=name, notes=[*found.notes, *notes])
    started = arguments_of(words, values=environment)
    env = {**environment, **before, **started.env}
    return Served(form="a systemd unit", name=name, words=started.words, env=env, notes=[*started.notes, *notes])


def _service(text: str) -> dict[str, list[str]]:
    """Return the settings of [Service]; an empty one takes back what stood before it."""
    settings: dict[str, list[str]] = {}
    section = ""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", ";"))]
    for line in re.sub(r"\\[ \t]*\n", " ", "\n".join(lines)).splitlines():
        if found := re.fullmatch(r"\[(\w+)\]", line.strip()):
            section = found[1]
        elif "=" in line and section == "Service":
            key, _, value = line.partition("=")
            known = settings.setdefault(key.strip(), [])
            known.append(value.strip()) if value.strip() else known.clear()
        elif section == "Container":
            found_text = "it is a Podman Quadlet, not a service"
            raise cannot_carry(found_text, "a unit with ExecStart=", "import the unit that Quadlet makes of it")
    return settings


def _first(command: str) -> str:
    return " ".join(command.split()[:2])


def _specified(text: str) -> str:
    return _SPECIFIER.sub(lambda found: "%" if found[1] == "%" else f"{MARK}{{{found[1]}}}", text)


def _expanded(words: list[str], environment: dict[str, str]) -> list[str]:
    """Fill variables as systemd does: a word that is `$NAME` gives as many words as the value has."""
    expanded: list[str] = []
    for word in words:
        alone = re.fullmatch(r"\$([A-Za-z_]\w*)", word)
        if alone and alone[1] in environment:
            expanded += environment[alone[1]].split()
            continue
        expanded.append(_VARIABLE.sub(lambda found: _value(found, environment), _specified(word)))
    return expanded


def _value(found: re.Match[str], environment: dict[str, str]) -> str:
    if found[1] == "$":
        return "$"
    name = found[2] or found[3]
    return environment.get(name, f"{MARK}{{{name}}}")
