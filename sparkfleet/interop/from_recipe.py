"""Reading sparkrun and eugr recipes: one `vllm serve` command out of placeholders, defaults and YAML.

Shapes: sparkrun 0.4.2 (its core/recipe.py, RECIPES.md) and the recipes of eugr/spark-vllm-docker, as published.
Whatever changes how the engine runs and has no place in a profile is refused with its reason; what decides nothing
about the engine is left out with a note.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sparkfleet.catalog.contract import Contract
from sparkfleet.interop.confidential import refuse_secret, refuse_secret_words
from sparkfleet.interop.container import Started, arguments_of_shell
from sparkfleet.interop.served import Served, cannot_carry
from sparkfleet.interop.variables import filled

_READ = frozenset(
    "recipe_version sparkrun_version name description metadata model model_revision runtime runtime_version container"
    " build_args mods defaults env command executor executor_config solo_only cluster_only min_nodes max_nodes mode"
    " builder builder_config distribution_config runtime_config".split()
)
# They describe the recipe, or steer the tool that runs it and not the engine.
_HARMLESS = frozenset(
    "maintainer min_sparkrun_version capabilities unsupported_capabilities benchmark runtime_cache readiness scheduler"
    " author authors license tags notes comment comments version source sources url homepage changelog tested tested_on"
    " category stop_after_post".split()
)
# Commands that run beside the engine once it serves.
_AFTER = ("post_exec", "post_commands")
_RUNTIMES = ("vllm", "vllm-distributed", "eugr-vllm")
# docker-pull does nothing (sparkrun 0.4.2, builders/docker_pull.py); eugr builds only where build_args say so.
_BUILDERS = ("docker-pull", "eugr")
# What a release does anyway, or in a way of its own: --ipc host makes shm_size void, --entrypoint the entrypoint.
_EXECUTOR: dict[str, tuple[Any, ...]] = {
    "gpus": ("all",),
    "gpu_access_mode": ("gpus", "cdi"),
    "network": ("host",),
    "privileged": (False,),
    "user": (None, "", "root", "0", 0),
    "accelerator_vendor": (None, "nvidia"),
}
_EXECUTOR_IGNORED = frozenset("shm_size entrypoint ipc auto_remove restart_policy labels ulimit memory_limit".split())
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TEMPLATE = re.compile(r"\{config\.([A-Za-z_][A-Za-z0-9_]*)\}")
# As sparkrun limits it: a chain of references is short, and anything longer is a circle.
_PASSES = 10
# sparkrun's names for vLLM's arguments, where they differ.
SPARKRUN_NAMES = {
    "tensor_parallel": "tensor_parallel_size",
    "pipeline_parallel": "pipeline_parallel_size",
    "data_parallel": "data_parallel_size",
}


def is_recipe(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("model"), str)


def read(document: dict[str, Any], name: str, contract: Contract) -> Served:
    """Read a recipe's command; raises SettingsError with the reason why it cannot be carried over."""
    version, notes = _version(document), list[str]()
    _refuse_what_has_no_place(document, notes)
    metadata = document.get("metadata") or {}
    description = document.get("description") or (metadata.get("description") if isinstance(metadata, dict) else None)
    defaults = document.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise cannot_carry("'defaults' is no mapping", "defaults: {key: value}")
    for key, value in defaults.items():
        refuse_secret(str(key), filled(value, {}) if isinstance(value, str) else value, "defaults.")
    env = _environment(document.get("env") or {}, defaults)
    command, values = document.get("command"), {"model_revision": document.get("model_revision"), **defaults}
    values["model"] = document["model"]
    if command is None:
        started = Started([document["model"], *_arguments_of_defaults(defaults, contract)])
    else:
        text = _filled(str(command), values, version)
        started = arguments_of_shell(text, env)
        unused = sorted(key for key in defaults if f"{{{key}}}" not in f"{command}{defaults}")
        if unused:
            notes.append(f"Defaults that its command does not use: {', '.join(map(str, unused))}")
    refuse_secret_words(started.words, "command")
    return Served(
        form=f"a sparkrun recipe of version {version}",
        name=name,
        description=" ".join(str(description or document["model"]).split()),
        words=started.words,
        model=document["model"],
        revision=_text(document.get("model_revision")),
        version=_text(document.get("runtime_version")),
        image=_text(document.get("container")),
        env={**env, **started.env},
        notes=notes,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _version(document: dict[str, Any]) -> str:
    legacy = "build_args" in document or "mods" in document
    given = document.get("recipe_version", document.get("sparkrun_version"))
    version = str(given or ("1" if legacy else "2"))
    if version.partition(".")[0] not in ("1", "2"):
        raise cannot_carry(f"recipe_version is {version}", "1 (eugr) or 2 (sparkrun), or a release of them")
    return version


def _refuse_what_has_no_place(document: dict[str, Any], notes: list[str]) -> None:
    for key in document:
        if key in _AFTER and document[key]:
            notes.append(f"'{key}' is left out: the gates try the engine before it gets any traffic")
        elif key not in _READ and key not in _HARMLESS and key not in _AFTER and not str(key).startswith("x-"):
            expected = f"none but {', '.join(sorted(_READ | _HARMLESS))}"
            raise cannot_carry(f"'{key}' has no place in a profile", expected, f"remove '{key}'")
    left = sorted(key for key in document if key in _HARMLESS or str(key).startswith("x-"))
    if left:
        notes.append(f"Left out, since they decide nothing about the engine: {', '.join(left)}")
    runtime, executor = document.get("runtime") or "vllm", document.get("executor") or "docker"
    builder = document.get("builder")
    building = document.get("build_args") or (builder == "eugr" and document.get("builder_config"))
    runtime_config = {key: value for key, value in (document.get("runtime_config") or {}).items() if value}
    several = document.get("cluster_only") or document.get("mode") == "cluster" or (document.get("min_nodes") or 1) != 1
    for wrong, what, expected in (
        (document.get("mods"), f"mods patch the image: {document.get('mods')}", "an image that needs no patch"),
        (building, f"build_args build an image: {building}", "a published image"),
        (builder not in (None, "", *_BUILDERS), f"builder is {builder}", f"one of {', '.join(_BUILDERS)}, or none"),
        (runtime not in _RUNTIMES, f"runtime is {runtime}", f"one of {', '.join(_RUNTIMES)} on one node"),
        (several, "it needs several nodes", "one node (solo_only, or max_nodes: 1)"),
        (runtime_config, f"runtime_config sets {', '.join(map(str, runtime_config))}", "no runtime_config"),
        (executor != "docker", f"executor is {executor}", "docker"),
    ):
        if wrong:
            raise cannot_carry(what, expected)
    if builder:
        notes.append(f"Builder {builder} is left out: an image of the catalogue is pulled, not built")
    _distribution(document, notes)
    _executor(document.get("executor_config") or {}, notes)


def _executor(given: dict[str, Any], notes: list[str]) -> None:
    for key, value in given.items():
        if key in _EXECUTOR_IGNORED:
            if key in ("restart_policy", "auto_remove", "labels", "ulimit", "memory_limit"):
                notes.append(f"executor_config.{key} is left out: systemd owns the container of a release")
        elif value not in _EXECUTOR.get(key, ()):
            found = f"executor_config.{key} is {value!r}, and a release does not start containers so"
            raise cannot_carry(found, f"one of {', '.join([*_EXECUTOR, *sorted(_EXECUTOR_IGNORED)])}")


def _distribution(document: dict[str, Any], notes: list[str]) -> None:
    """What the recipe's own model and drafter need is locked and staged anyway; anything else has no place."""
    given = document.get("distribution_config")
    if not given:
        return
    text = f"{document.get('command')}{document.get('defaults')}"
    known = ("{model}", "{container}", document["model"], document.get("container"))
    for kind in ("models", "containers", "additional_models"):
        rows = given.get(kind) or [] if isinstance(given, dict) else []
        for entry in rows.get("entries") or [] if isinstance(rows, dict) else rows:
            name = str(entry.get("name") if isinstance(entry, dict) else entry)
            if name not in known and name not in text:
                found = f"distribution_config.{kind} names {name}, which neither model nor drafter is"
                raise cannot_carry(found, "the recipe's own model, drafter and container")
            revision = entry.get("revision") if isinstance(entry, dict) else None
            if revision:
                notes.append(f"distribution_config pins {name} to {revision}; the lock decides")
    notes.append("distribution_config is left out: the lock and the staging bring model, drafter and image")


def _environment(env: dict[str, Any], defaults: dict[str, Any]) -> dict[str, str]:
    values = {}
    for name, value in env.items():
        text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
        text = _TEMPLATE.sub(lambda found: str(defaults.get(found[1], found[0])), text)
        if "{launch." in text or "{config." in text:
            raise cannot_carry(f"env.{name} is filled at launch: {text}", "a literal value")
        values[str(name)] = filled(text, {})
        refuse_secret(str(name), values[str(name)], "env.")
    return values


def _arguments_of_defaults(defaults: dict[str, Any], contract: Contract) -> list[str]:
    """Without a command, sparkrun builds it from the defaults."""
    words: list[str] = []
    for name, value in defaults.items():
        flag = contract.flags.get(SPARKRUN_NAMES.get(name, name))
        if flag is None:
            raise cannot_carry(f"defaults.{name} is no argument of {contract}", "an argument of vllm serve")
        words += [] if value is None else flag.words(json.dumps(value) if isinstance(value, dict) else value)
    return words


def _filled(command: str, values: dict[str, Any], version: str) -> str:
    """Fill the placeholders. In v1, and in v2 wherever it occurs, a doubled brace is a literal one."""
    doubled = version.startswith("1") or "{{" in command
    if doubled:
        command = command.replace("{{", "\0").replace("}}", "\1")

    def value_of(match: re.Match[str]) -> str:
        # ${NAME} is the shell's.
        if match.start() and match.string[match.start() - 1] == "$":
            return match[0]
        name = match[1]
        if values.get(name) is None:
            found = f"the placeholder {{{name}}} has no value in 'defaults'"
            raise cannot_carry(found, f"one of {', '.join(values)}", f"add {name} to 'defaults'")
        value = values[name]
        if isinstance(value, list):
            return " ".join(map(str, value))
        return json.dumps(value) if isinstance(value, dict) else str(value)

    for _ in range(_PASSES):
        before, command = command, _PLACEHOLDER.sub(value_of, command)
        if before == command:
            break
    return command.replace("\0", "{").replace("\1", "}")
