"""The systemd unit of a release, rendered from `templates/`."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from sparkfleet import ROOT
from sparkfleet.catalog.rows import Timing
from sparkfleet.errors import SettingsError

DOCKER = "/usr/bin/docker"
RELEASE_JSON = "/var/lib/sparkfleet/current/release.json"
# The node waits 30 s longer for a stop than the unit's own timeout (sparknode/activate/steps.py).
STOP_POST_S = 15


def systemd_quote(argument: str) -> str:
    """Quote one argument for ExecStart=, so that systemd passes it on unchanged (systemd.service(5))."""
    if "\n" in argument or "\r" in argument or "\0" in argument:
        found = f"the command line has an argument with a line break or NUL: {argument!r}"
        raise SettingsError(found, "one line", "fix the value in the catalogue or the inventory")
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def serve_unit(
    argv: list[str],
    container: str,
    timing: Timing,
    memory_gate: bool,
    model: str,
    engine: str,
    drop_caches: bool = False,
) -> str:
    """Render sparkfleet-serve.service for a `docker run` command line."""
    context: dict[str, Any] = {
        "argv": [systemd_quote(argument) for argument in [DOCKER, *argv[1:]]],
        "container": container,
        "docker": DOCKER,
        "drop_caches": drop_caches,
        "docker_stop_s": timing.docker_stop_s,
        "engine": engine,
        "memory_gate": memory_gate,
        "model": model,
        "release_json": RELEASE_JSON,
        "start_timeout_s": timing.memory_wait_s + timing.load_deadline_s,
        "stop_post_s": STOP_POST_S,
        "unit_stop_s": timing.unit_stop_s,
    }
    return _template().render(context)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template("sparkfleet-serve.service.j2")
