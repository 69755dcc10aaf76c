"""How a release is started: its `docker run`, and the systemd unit around that, rendered from `templates/`."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from sparkfleet import ROOT
from sparkfleet.errors import SettingsError
from sparknode.state.release import Release

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


def docker_run(release: Release) -> list[str]:
    """Return the command that starts a release's container, which its unit calls."""
    container = release.container
    argv = ["docker", "run", "--rm", "--name", container.name, *container.gpu]
    argv += ["--ipc", "host", "--network", "host", "--log-driver", "local", *container.options]
    if release.api_key_file:
        argv += ["--env-file", release.api_key_file]
    for name, value in container.env.items():
        argv += ["-e", f"{name}={value}"]
    for mount in container.mounts:
        argv += ["-v", f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"]
    return [*argv, "--entrypoint", container.entrypoint, release.image.reference, *container.args]


def serve_unit(release: Release, drop_caches: bool = False) -> str:
    """Render sparkfleet-serve.service, which starts the container of a release."""
    timing = release.timing
    context: dict[str, Any] = {
        "argv": [systemd_quote(argument) for argument in [DOCKER, *docker_run(release)[1:]]],
        "container": release.container.name,
        "docker": DOCKER,
        "drop_caches": drop_caches,
        "docker_stop_s": timing.docker_stop_s,
        "engine": release.engine.kind,
        "memory_gate": release.memory is not None,
        "model": release.model,
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
