"""Reading sparkrun v2 and eugr v1 recipes: one `vllm serve` command out of placeholders, defaults and YAML.

Whatever changes how the engine runs and has no place in a profile is refused with its reason: shell around the
command, patches to the image, several nodes, other runtimes, secrets. Shapes: sparkrun's RECIPES.md and the recipes
of eugr/spark-vllm-docker, as published.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

import yaml

from sparkfleet.contract import Contract
from sparkfleet.errors import SettingsError
from sparkfleet.yamltext import parse_yaml

# Read by the tool, or saying nothing about how the engine runs.
KNOWN_KEYS = frozenset(
    "recipe_version name description metadata model model_revision runtime runtime_version container build_args mods"
    " defaults env command executor executor_config solo_only cluster_only min_nodes max_nodes mode benchmark"
    " runtime_cache".split()
)
RUNTIMES = ("vllm", "vllm-distributed", "eugr-vllm")
# What a release does anyway, so that writing it down changes nothing.
EXECUTOR_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "auto_remove": (True,),
    "gpus": ("all",),
    "gpu_access_mode": ("gpus", "cdi"),
    "ipc": ("host",),
    "network": ("host",),
    "privileged": (False,),
}
# Sizes and entrypoints that a release sets itself: --ipc host makes the first void, --entrypoint the second.
EXECUTOR_IGNORED = ("shm_size", "entrypoint")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE_?KEY", re.IGNORECASE)
PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# sparkrun's names for vLLM's arguments, where they differ.
SPARKRUN_NAMES = {
    "tensor_parallel": "tensor_parallel_size",
    "pipeline_parallel": "pipeline_parallel_size",
    "data_parallel": "data_parallel_size",
}


def cannot_carry(what: str, expected: str, remedy: str = "") -> SettingsError:
    return SettingsError(f"the recipe cannot be carried over: {what}", expected, remedy)


@dataclass(frozen=True)
class ForeignRecipe:
    """One serving command as its author wrote it; `arguments` is what follows `vllm serve`."""

    version: str
    name: str
    description: str
    model: str
    container: str | None
    env: dict[str, str]
    arguments: list[str]


def read_document(text: str) -> dict[str, Any]:
    """Read a recipe's YAML; raises SettingsError when it is none, or names no model."""
    try:
        document = parse_yaml(text)
    except yaml.YAMLError as error:
        raise cannot_carry(f"it is not YAML: {error}", "a sparkrun v2 or eugr v1 recipe") from None
    if not isinstance(document, dict) or not isinstance(document.get("model"), str):
        raise cannot_carry("it has no key 'model'", "a sparkrun v2 or eugr v1 recipe", "check the file")
    return document


def read_recipe(document: dict[str, Any], contract: Contract) -> ForeignRecipe:
    """Read a recipe's command; raises SettingsError with the reason why it cannot be carried over."""
    version = _version(document)
    _refuse_what_has_no_place(document)
    metadata = document.get("metadata") or {}
    description = document.get("description") or (metadata.get("description") if isinstance(metadata, dict) else None)
    defaults = document.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise cannot_carry("'defaults' is no mapping", "defaults: {key: value}")
    command = document.get("command")
    if command is None:
        arguments = [document["model"], *_arguments_of_defaults(defaults, contract)]
    else:
        arguments = _arguments_of_command(_filled(str(command), {**defaults, "model": document["model"]}, version))
    return ForeignRecipe(
        version=version,
        name=str(document.get("name") or document["model"].rsplit("/", 1)[-1]),
        description=" ".join(str(description or document["model"]).split()),
        model=document["model"],
        container=document.get("container"),
        env=_environment(document.get("env") or {}),
        arguments=arguments,
    )


def _version(document: dict[str, Any]) -> str:
    legacy = "build_args" in document or "mods" in document
    version = str(document.get("recipe_version") or ("1" if legacy else "2"))
    if version not in ("1", "2"):
        raise cannot_carry(f"recipe_version is {version}", "1 (eugr) or 2 (sparkrun)")
    return version


def _refuse_what_has_no_place(document: dict[str, Any]) -> None:
    for key in document:
        if key not in KNOWN_KEYS:
            expected = f"none but {', '.join(sorted(KNOWN_KEYS))}"
            raise cannot_carry(f"'{key}' has no place in a profile", expected, f"remove '{key}'")
    runtime, executor = document.get("runtime") or "vllm", document.get("executor") or "docker"
    several = document.get("cluster_only") or document.get("mode") == "cluster" or (document.get("min_nodes") or 1) != 1
    for wrong, what, expected in (
        (document.get("mods"), f"mods patch the image: {document.get('mods')}", "an image that needs no patch"),
        (document.get("build_args"), f"build_args build an image: {document.get('build_args')}", "a published image"),
        (runtime not in RUNTIMES, f"runtime is {runtime}", f"one of {', '.join(RUNTIMES)} on one node"),
        (several, "it needs several nodes", "one node (solo_only, or max_nodes: 1)"),
        (executor != "docker", f"executor is {executor}", "docker"),
    ):
        if wrong:
            raise cannot_carry(what, expected)
    for key, value in (document.get("executor_config") or {}).items():
        if key not in EXECUTOR_IGNORED and value not in EXECUTOR_DEFAULTS.get(key, ()):
            found = f"executor_config.{key} is {value!r}, and a release does not start containers so"
            raise cannot_carry(found, f"one of {', '.join([*EXECUTOR_DEFAULTS, *EXECUTOR_IGNORED])}")


def _environment(env: dict[str, Any]) -> dict[str, str]:
    values = {}
    for name, value in env.items():
        if SECRET.search(str(name)):
            remedy = "put the API key into a file on the node and set api_key_file"
            raise cannot_carry(f"env.{name} looks like a secret", "no secrets in recipes", remedy)
        if "$" in str(value):
            raise cannot_carry(f"env.{name} refers to another variable: {value}", "a literal value")
        values[str(name)] = str(value).lower() if isinstance(value, bool) else str(value)
    return values


def _arguments_of_defaults(defaults: dict[str, Any], contract: Contract) -> list[str]:
    """Without a command, sparkrun builds it from the defaults."""
    words: list[str] = []
    for name, value in defaults.items():
        flag = contract.flags.get(SPARKRUN_NAMES.get(name, name))
        if flag is None:
            raise cannot_carry(f"defaults.{name} is no argument of {contract}", "an argument of vllm serve")
        words += [] if value is None else flag.words(value)
    return words


def _filled(command: str, values: dict[str, Any], version: str) -> str:
    """Fill the placeholders. In v1, and in v2 wherever it occurs, a doubled brace is a literal one."""
    doubled = version == "1" or "{{" in command
    if doubled:
        command = command.replace("{{", "\0").replace("}}", "\1")

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            found = f"the placeholder {{{name}}} has no value in 'defaults'"
            raise cannot_carry(found, f"one of {', '.join(values)}", f"add {name} to 'defaults'")
        value = values[name]
        return " ".join(str(item) for item in value) if isinstance(value, list) else str(value)

    filled = PLACEHOLDER.sub(value_of, command)
    return filled.replace("\0", "{").replace("\1", "}")


def _arguments_of_command(command: str) -> list[str]:
    joined = re.sub(r"\\[ \t]*\n", " ", command).strip()
    if "\n" in joined:
        raise cannot_carry("the command is a shell script of several lines", "one `vllm serve` command")
    lexer = shlex.shlex(joined, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise cannot_carry(f"the command cannot be read: {error}", "balanced quotes") from None
    operators = [word for word in words if word and set(word) <= set("();<>|&")]
    expansions = [word for word in words if "$" in word or "`" in word]
    if operators or expansions:
        found = f"the command needs a shell: {' '.join([*operators, *expansions])}"
        raise cannot_carry(found, "one `vllm serve` command")
    if words[:2] != ["vllm", "serve"]:
        raise cannot_carry(f"the command starts with '{' '.join(words[:2])}'", "vllm serve")
    return words[2:]
