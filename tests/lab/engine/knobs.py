"""Everything that can be changed about a simulated engine or its host from outside, with the defaults."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Knobs:
    # loading
    load_s: float = 0.5
    slow_load_s: float = 0.0
    never_ready: bool = False
    exit_0_loop: bool = False
    load_error: str = ""
    # serving
    exit_after_ready: float | None = None
    die_on_first_request: bool = False
    core_killed: bool = False
    core_stopped: bool = False
    hang_with_health_200: bool = False
    empty_text: bool = False
    leak_control_tokens: bool = False
    leak_thinking: bool = False
    broken_tool_json: bool = False
    refuse_images: bool = False
    stream_without_usage: bool = False
    stream_without_done: bool = False
    gpu_gone: bool = False
    wrong_model_name: str = ""
    crash_at_concurrency: int | None = None
    death_grace_s: float = 0.5
    # speed
    tokens_per_second: float = 500.0
    slowdown: float = 1.0
    first_token_s: float = 0.02
    reply_tokens: int = 400
    # speculation
    acceptance: float | None = None
    long_acceptance: float | None = None
    acceptance_decay: float | None = None
    # the host
    mem_available_kib: int | None = None
    memory_return_s: float = 0.2
    gpu_mode: str = "ok"
    gpu_exit_code: int = 6
    gpu_driver: str = ""
    gpu_power_w: float | None = None


NAMES = tuple(field.name for field in fields(Knobs))


class KnobError(ValueError):
    """A knob that does not exist, or a value that it cannot take."""


def parse(name: str, text: str) -> Any:
    """The value that ``text`` from a command line means for a knob."""
    kind = _kind(name)
    lowered = text.strip().lower()
    if lowered in ("none", "null") and type(None) in _alternatives(kind):
        return None
    plain = next(option for option in _alternatives(kind) if option is not type(None))
    if plain is bool:
        if lowered in ("1", "true", "yes", "on"):
            return True
        if lowered in ("0", "false", "no", "off"):
            return False
        raise KnobError(f"{name}={text}: expected true or false")
    try:
        return plain(text)
    except ValueError as error:
        raise KnobError(f"{name}={text}: expected {'a number' if plain is not str else 'text'}") from error


def checked(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with every value in its knob's own type; refuses what no knob is called."""
    return {name: value if value is None else parse(name, _text(value)) for name, value in settings.items()}


def merged(*layers: dict[str, Any]) -> Knobs:
    """The defaults under the layers, the later ones on top; what no knob is called is left out."""
    known: dict[str, Any] = {}
    for layer in layers:
        known.update({name: value for name, value in layer.items() if name in NAMES})
    return replace(Knobs(), **known)


def document(knobs: Knobs) -> dict[str, Any]:
    return asdict(knobs)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kind(name: str) -> Any:
    hints = get_type_hints(Knobs)
    if name not in hints:
        raise KnobError(f"no knob is called {name!r}; there are {', '.join(NAMES)}")
    return hints[name]


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return tuple(getattr(kind, "__args__", (kind,)))
