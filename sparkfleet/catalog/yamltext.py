"""YAML by libyaml where PyYAML has it: the catalogue is read by every command, and ten times sooner so."""

from __future__ import annotations

from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str) -> Any:
    """Return the one document of a text.

    Raises `yaml.YAMLError`.
    """
    return yaml.load(text, Loader=_LOADER)
