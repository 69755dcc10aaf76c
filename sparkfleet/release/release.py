"""A release: everything that decides what a host runs, as plain data whose id is the hash of its canonical JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from sparkfleet.catalog.catalog import Catalog, Drafter, Model
from sparkfleet.errors import LockError, RefusedError
from sparkfleet.release.capacity import capacity
from sparkfleet.release.lockfile import Lock, LockedImage
from sparkfleet.release.nearest import nearest_working
from sparkfleet.release.recipe import Choice, Recipe, compile_recipe
from sparkfleet.release.rules import Deployment, Finding, judge
from sparkfleet.release.unit import serve_unit
from sparkfleet.release.weights import unchecked
from sparknode.base.document import content_id

SCHEMA = 1
STATE = PurePosixPath("/var/lib/sparkfleet")
CONTAINER = "sparkfleet-serve"


@dataclass(frozen=True)
class Operation:
    """What a fleet's operator decides about running a release, apart from what it serves."""

    soak_s: int | None = None
    watch: bool = True
    rotation: dict[str, Any] | None = None
    drop_caches: bool = False


@dataclass(frozen=True)
class Compiled:
    """A release with what was said about it and whether it can be staged (every digest and commit known)."""

    release: dict[str, Any]
    recipe: Recipe
    findings: tuple[Finding, ...]
    unlocked: tuple[str, ...]
    proven: str

    @property
    def id(self) -> str:
        return str(self.release["id"])

    @property
    def argv(self) -> list[str]:
        return docker_run(self.release)

    @property
    def overridden(self) -> list[str]:
        return [override.words() for override in self.recipe.overridden]

    def remarks(self, memory_bytes: int | None = None) -> list[str]:
        """Say what is known of the choice beside its rules: how well proven the image is, and what its cache holds on a
        machine with so much memory.
        """
        found = capacity(self.recipe, memory_bytes)
        return [
            f"image {self.recipe.choice.image_tag}: {self.proven}",
            *([] if isinstance(found, str) else [found.words()]),
        ]


def compile_release(
    catalog: Catalog,
    lock: Lock | None,
    choice: Choice,
    deployment: Deployment,
    gpu_injection: Literal["gpus", "cdi"] = "gpus",
    operation: Operation | None = None,
) -> Compiled:
    """Compile the choice to a release.

    Raises SettingsError for an unknown id or override, RefusedError when a rule refuses the combination.
    """
    recipe = compile_recipe(catalog, choice)
    locked = bool(lock and choice.image_tag in lock.images)
    unknown = tuple(unchecked(lock, recipe.model, recipe.drafter)) if lock else ()
    findings = judge(recipe, replace(deployment, image_locked=locked, unchecked=unknown))
    failed = [finding for finding in findings if finding.severity == "fail"]
    if failed:
        working = nearest_working(catalog, choice, deployment)
        raise RefusedError(
            f"model {choice.model} with image {choice.image_tag}, profile {choice.profile} on {choice.hardware} "
            "is refused",
            remedy=f"the nearest combination that works: {working}" if working else "",
            reasons=[finding.text() for finding in failed],
        )
    unlocked: list[str] = []
    image = _image(recipe, lock, unlocked)
    artefacts = _artefacts(recipe, lock, unlocked)
    container = _container(recipe, image, artefacts, gpu_injection)
    memory = {"utilization": recipe.memory_utilization} if recipe.hardware.unified_memory else None
    operation = operation or Operation()
    timing = recipe.timing
    if operation.soak_s is not None:
        timing = timing.model_copy(update={"soak_s": operation.soak_s})
    release: dict[str, Any] = {
        "schema": SCHEMA,
        "host_kind": {"hardware": choice.hardware},
        "model": choice.model,
        "profile": choice.profile,
        "image_tag": choice.image_tag,
        "image_line": choice.image_line,
        "overrides": {override.key: override.value for override in recipe.overridden},
        "engine": {"kind": recipe.line.engine, "version": recipe.line.engine_version, "api": recipe.engine.api},
        "image": image,
        "artefacts": artefacts,
        "container": container,
        "serve": {
            "port": recipe.args["port"],
            "served_names": list(recipe.served_names),
            "max_model_len": recipe.max_model_len,
            "model_root": recipe.model.container_path,
            "drafter_backend": (recipe.speculative or {}).get("attention_backend"),
            "prefix_caching": recipe.args.get("enable_prefix_caching") is not False,
            "speculative": recipe.speculative is not None,
        },
        "memory": memory,
        "timing": timing.model_dump(exclude={"stop_margin_s"}),
        # The margins of a comparison are the controller's: a host that was proven is not proven again for them.
        "gates": {
            **recipe.gates.model_dump(exclude={"compare"}),
            "control_tokens": sorted(recipe.model.control_token_ids.values()),
        },
        "rotation": operation.rotation,
        "watch": _watch(recipe, operation),
        "api_key_file": deployment.api_key_file,
    }
    release["unit"] = serve_unit(
        *(docker_run(release), CONTAINER, timing, memory is not None, choice.model, recipe.line.engine),
        operation.drop_caches,
    )
    release["id"] = content_id(release)
    # What is only declared to behave like a known image was not seen itself.
    proven = catalog.proven(choice.image_tag if choice.image_line is None else "")
    return Compiled(release, recipe, tuple(findings), tuple(unlocked), proven)


def _watch(recipe: Recipe, operation: Operation) -> dict[str, Any] | None:
    rules = recipe.profile.watch
    if rules is None:
        return None
    drafter = recipe.support
    document: dict[str, Any] = {
        "enabled": operation.watch,
        "restart_on_collapse": drafter is not None and drafter.restart_cures_collapse,
        **rules.model_dump(),
        # Nothing draws less than 0 W: where nobody knows, power never shortens the wait.
        "wedged_power_w": recipe.hardware.wedged_power_w or 0.0,
    }
    return document if drafter else {**document, "min_acceptance_rate": None}


def _image(recipe: Recipe, lock: Lock | None, unlocked: list[str]) -> dict[str, Any]:
    tag, row = recipe.choice.image_tag, recipe.image
    architecture = recipe.hardware.architecture
    locked: LockedImage | None = lock.images.get(tag) if lock else None
    base = {"repository": row.repository, "architecture": architecture}
    if locked is None:
        unlocked.append(f"image {tag}")
        name = f"{row.repository}@{row.digest}" if row.digest else f"{row.repository}:{row.registry_tag or tag}"
        return {**base, "digest": row.digest, "image_ids": [], "reference": name}
    platform = locked.platforms.get(architecture)
    if platform is None:
        raise LockError(
            f"image {tag} has no {architecture} build in the lock",
            f"one of {', '.join(sorted(locked.platforms))}",
            "choose an image with a build for this machine, or run `python -m sparkfleet lock` again",
        )
    ids = sorted({platform.config_digest, platform.manifest_digest, locked.digest})
    # A tag of the tool's own on the host: it stays valid when the image came from a mirror or a saved file, where
    # `repository@digest` does not resolve offline (moby#22011, moby#43570).
    reference = f"{row.repository}:{locked.digest.replace(':', '-')}"
    return {**base, "digest": locked.digest, "image_ids": ids, "reference": reference}


def _artefacts(recipe: Recipe, lock: Lock | None, unlocked: list[str]) -> list[dict[str, Any]]:
    rows: list[Model | Drafter] = [recipe.model, *([recipe.drafter] if recipe.drafter else [])]
    artefacts = []
    for role, row in zip(("target", "drafter"), rows, strict=False):
        locked = lock.repos.get(row.repo) if lock else None
        if locked is None:
            unlocked.append(f"repository {row.repo}")
        commit = locked.commit if locked else row.revision or "unlocked"
        document = {"role": role, "repo": row.repo, "commit": commit}
        document |= {"host_path": str(STATE / "models" / row.repo / commit), "container_path": row.container_path}
        artefacts.append({**document, "manifest_sha256": locked.manifest_sha256 if locked else None})
    return artefacts


def _container(
    recipe: Recipe, image: dict[str, Any], artefacts: list[dict[str, Any]], gpu_injection: Literal["gpus", "cdi"]
) -> dict[str, Any]:
    key = (image["digest"] or f"tag-{recipe.choice.image_tag}").replace(":", "-")
    mounts = [{"source": row["host_path"], "target": row["container_path"], "read_only": True} for row in artefacts]
    mounts += [
        {"source": str(STATE / "cache" / key / name), "target": target, "read_only": False}
        for name, target in recipe.engine.caches.items()
    ]
    return {
        "name": CONTAINER,
        "entrypoint": recipe.line.entrypoint,
        "args": recipe.engine.command(recipe),
        "env": dict(recipe.env),
        "mounts": mounts,
        "gpu": list(recipe.hardware.gpu_arguments[gpu_injection]),
        "options": list(recipe.engine.docker_options),
    }


def docker_run(release: Mapping[str, Any]) -> list[str]:
    """Return the command that starts a release's container, which its unit calls."""
    container = release["container"]
    argv = ["docker", "run", "--rm", "--name", container["name"], *container["gpu"]]
    argv += ["--ipc", "host", "--network", "host", "--log-driver", "local", *container["options"]]
    if release["api_key_file"]:
        argv += ["--env-file", release["api_key_file"]]
    for name, value in container["env"].items():
        argv += ["-e", f"{name}={value}"]
    for mount in container["mounts"]:
        suffix = ":ro" if mount["read_only"] else ""
        argv += ["-v", f"{mount['source']}:{mount['target']}{suffix}"]
    return [*argv, "--entrypoint", container["entrypoint"], release["image"]["reference"], *container["args"]]
