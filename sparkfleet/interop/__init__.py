"""Recipes of other tools, in and out: one reader a foreign form, one writer an output form, and plain data between.

A reader gives a `Served`, which `profile` turns into a row for `catalog/profiles.yaml`; a writer takes a compiled
release.

Imports `catalog`, `release`, `preflight`, `inventory`, `rollout`, `report`, `node`, `artefacts`, `deploy` and the
node's own parsers.
"""

from __future__ import annotations

from collections.abc import Callable

from sparkfleet.interop.profile import ImportedProfile, import_recipe
from sparkfleet.interop.to_docker import compose_file, run_script
from sparkfleet.interop.to_docker_model import docker_model_commands
from sparkfleet.interop.to_sparkrun import sparkrun_recipe
from sparkfleet.release.release import Compiled

EXPORTS: dict[str, Callable[[Compiled], str]] = {
    "sparkrun": sparkrun_recipe,
    "compose": compose_file,
    "run": run_script,
}

__all__ = ["EXPORTS", "ImportedProfile", "docker_model_commands", "import_recipe"]
