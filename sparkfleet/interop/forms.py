"""Which foreign form a file has, and its reader."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import yaml

from sparkfleet.catalog.contract import Contract
from sparkfleet.catalog.yamltext import parse_yaml
from sparkfleet.interop import from_compose, from_recipe, from_script, from_unit
from sparkfleet.interop.served import Served, cannot_carry

FORMS = (
    "a sparkrun recipe (version 1 or 2), a recipe of eugr's scripts, a Compose file, a script or line with `docker run`"
    " or `vllm serve`, or a systemd unit"
)
# Keys by which files are known that are none of these.
_OTHERS = {
    "apiVersion": "a Kubernetes manifest",
    "hosts": "an Ansible playbook",
    "on": "a workflow of a build service",
    "include": "a Compose file that includes others",
}


def read_form(
    text: str,
    origin: str,
    service: str | None,
    contract_of: Callable[[str | None, str | None], Contract],
    image_entrypoint: Callable[[str], str | None],
) -> Served:
    """Read a file in whichever of the forms it is; raises SettingsError when it is none, or cannot be carried over."""
    name, is_yaml = PurePath(origin).stem, PurePath(origin).suffix in (".yaml", ".yml", ".json")
    if from_unit.is_unit(text):
        return from_unit.read(text, name, image_entrypoint)
    document, problem = _document(text)
    if from_compose.is_compose(document):
        return from_compose.read(document, name, service, image_entrypoint)
    if from_recipe.is_recipe(document):
        image, version = document.get("container"), document.get("runtime_version")
        contract = contract_of(str(image) if image else None, str(version) if version else None)
        return from_recipe.read(document, name, contract)
    if (text.startswith("#!") or not is_yaml) and from_script.is_script(text):
        return from_script.read(text, name, service, image_entrypoint)
    if problem and is_yaml:
        raise cannot_carry(f"it is not YAML: {problem}", FORMS, "correct the line that the message names")
    raise cannot_carry(_what(document), FORMS, "check the file")


def _document(text: str) -> tuple[Any, str]:
    try:
        return parse_yaml(text), ""
    except yaml.YAMLError as error:
        return None, re.sub(r"\s+", " ", str(error))


def _what(document: Any) -> str:
    for key, what in _OTHERS.items() if isinstance(document, dict) else ():
        if key in document:
            return f"it is {what}"
    if isinstance(document, dict):
        return "it has no key 'model', as recipes have, and no 'services', as Compose files have"
    return "it starts no engine that is known here"
