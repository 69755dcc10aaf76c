"""Reading the one engine of a Docker Compose file (docs.docker.com/reference/compose-file)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sparkfleet.errors import SettingsError
from sparkfleet.interop.confidential import looks_secret, refuse_secret, refuse_secret_words, secret_found
from sparkfleet.interop.container import Container, arguments_of, mount_of, served, split_words
from sparkfleet.interop.served import MARK, Mount, Served, cannot_carry
from sparkfleet.interop.variables import filled

# What a release does in its own way, or what decides nothing about the engine.
_OURS = frozenset(
    "image command entrypoint environment volumes ports container_name restart ipc network_mode networks shm_size"
    " runtime gpus deploy logging healthcheck labels stop_grace_period stop_signal ulimits init tty stdin_open hostname"
    " pull_policy profiles depends_on expose platform annotations working_dir devices attach scale".split()
)
_NOTED = frozenset(
    "env_file secrets configs extra_hosts dns cap_add cap_drop security_opt pid mem_limit memswap_limit cpus cpuset"
    " sysctls group_add tmpfs cgroup mem_reservation oom_score_adj userns_mode".split()
)
_OF_GPU = ("nvidia.com/gpu", "/dev/nvidia", "/dev/infiniband")


def is_compose(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("services"), dict)


def read(
    document: dict[str, Any], name: str, wanted: str | None, image_entrypoint: Callable[[str], str | None]
) -> Served:
    """Read the service that serves a model, or the one named `wanted`."""
    services = {str(key): row for key, row in document["services"].items() if isinstance(row, dict)}
    if wanted is not None and wanted not in services:
        raise cannot_carry(f"there is no service '{wanted}'", f"one of {', '.join(services)}", "correct --service")
    engines = [wanted] if wanted else [key for key, row in services.items() if _serves(row, image_entrypoint)]
    if len(engines) != 1:
        if not engines:
            raise cannot_carry(f"no service of the Compose file starts vLLM: {', '.join(services)}", "one that does")
        found = f"the Compose file has {len(engines)} services that start vLLM: {', '.join(engines)}"
        raise cannot_carry(found, "one", "name it with --service")
    service, others = engines[0], [key for key in services if key != engines[0]]
    row = _filled(services[service])
    where = f"services.{service}"
    container = _container(row, where)
    if others:
        container.notes.append(f"Not carried over: the other services of the file ({', '.join(others)})")
    result = served("a Compose file", container, _name(name, service), image_entrypoint)
    refuse_secret_words(result.words, f"{where}.command")
    for key in ("healthcheck", "labels", "logging"):
        if any(looks_secret(text) for text in _texts(row.get(key))):
            raise secret_found(f"{where}.{key}")
    return result


def _name(name: str, service: str) -> str:
    return service if name in ("compose", "docker-compose") else name


def _serves(row: Mapping[str, Any], image_entrypoint: Callable[[str], str | None]) -> bool:
    """Say whether a service starts vLLM; what cannot be told from its command is told from its image."""
    entrypoint, command = _words(_filled(row.get("entrypoint"))), _words(_filled(row.get("command")))
    image = str(row.get("image") or "")
    try:
        arguments_of([*entrypoint, *command])
    except SettingsError:
        text = " ".join([*entrypoint, *command])
        return (
            "vllm serve" in text or "vllm" in image or (bool(image) and image_entrypoint(filled(image, {})) is not None)
        )
    return True


def _container(row: dict[str, Any], where: str) -> Container:
    for key, value in row.items():
        if key in _OURS or key in _NOTED or key.startswith("x-") or value in (None, False):
            continue
        what = {
            "build": "builds an image",
            "extends": "takes its service from another file",
            "privileged": "gives the container the whole host",
        }.get(key, "has no place in a profile")
        raise cannot_carry(f"{where}.{key} {what}", "a published image, and no such key", f"remove '{key}'")
    if not row.get("image"):
        raise cannot_carry(f"{where} names no image", "image: REPOSITORY:TAG")
    container = Container(image=str(row["image"]), name="")
    container.entrypoint, container.command = _words(row.get("entrypoint")), _words(row.get("command"))
    container.env = _environment(row.get("environment"), where)
    container.mounts = [_mount(item) for item in row.get("volumes") or []]
    container.ports = [str(item) for item in row.get("ports") or [] if not isinstance(item, dict)]
    container.ports += [
        f"{item['published']}:{item.get('target')}"
        for item in row.get("ports") or []
        if isinstance(item, dict) and item.get("published")
    ]
    noted = sorted(_NOTED & row.keys())
    if any(not str(device).startswith(_OF_GPU) for device in row.get("devices") or []):
        noted.append("devices")
    if noted:
        container.notes.append(f"Not carried over, of the container: {', '.join(noted)}")
    return container


def _environment(given: Any, where: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    if isinstance(given, list):
        for item in given:
            name, equals, value = str(item).partition("=")
            pairs[name] = value if equals else f"{MARK}{{{name}}}"
    elif isinstance(given, dict):
        for key, value in given.items():
            pairs[str(key)] = f"{MARK}{{{key}}}" if value is None else _text(value)
    for name, value in pairs.items():
        refuse_secret(name, value, f"{where}.environment.")
    return pairs


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(given: Any) -> list[str]:
    if given is None:
        return []
    return [str(item) for item in given] if isinstance(given, list) else split_words(str(given))


def _mount(item: Any) -> Mount:
    if isinstance(item, dict):
        return Mount(str(item.get("source", "")), str(item.get("target", "")))
    return mount_of(str(item))


def _filled(value: Any) -> Any:
    """Compose fills variables in every text; those that the file does not set stay references."""
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item) for item in value]
    return filled(value, {}) if isinstance(value, str) else value


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.items() for text in (str(item[0]), *_texts(item[1]))]
    if isinstance(value, list):
        return [" ".join(map(str, value)), *(text for item in value for text in _texts(item))]
    return [] if value is None else [str(value)]
