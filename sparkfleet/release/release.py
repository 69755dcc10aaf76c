"""From a choice to a release (`sparknode.state.release`): everything that decides what a host runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from sparkfleet.catalog.catalog import Catalog, Drafter, Model
from sparkfleet.errors import CatalogError, LockError, RefusedError
from sparkfleet.release.capacity import capacity
from sparkfleet.release.lockfile import Lock, LockedImage
from sparkfleet.release.nearest import nearest_working
from sparkfleet.release.recipe import Choice, Recipe, compile_recipe
from sparkfleet.release.rules import Deployment, Finding, judge
from sparkfleet.release.unit import docker_run, serve_unit
from sparkfleet.release.weights import unchecked
from sparknode import SCHEMAS
from sparknode.base.document import content_id
from sparknode.base.shape import Node, written
from sparknode.errors import Refused
from sparknode.state import release as schema

STATE = PurePosixPath("/var/lib/sparkfleet")
CONTAINER = "sparkfleet-serve"


@dataclass(frozen=True)
class Operation:
    """What a fleet's operator decides about running a release, apart from what it serves."""

    soak_s: int | None = None
    watch: bool = True
    rotation: schema.Rotation | None = None
    drop_caches: bool = False


@dataclass(frozen=True)
class Compiled:
    """A release with what was said about it and whether it can be staged (every digest and commit known)."""

    release: schema.Release
    recipe: Recipe
    findings: tuple[Finding, ...]
    unlocked: tuple[str, ...]
    proven: str

    @property
    def id(self) -> str:
        return self.release.id

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
    operation = operation or Operation()
    timing = recipe.timing
    if operation.soak_s is not None:
        timing = timing.model_copy(update={"soak_s": operation.soak_s})
    content = schema.Release(
        schema=SCHEMAS["release"],
        host_kind=schema.HostKind(choice.hardware),
        model=choice.model,
        profile=choice.profile,
        image_tag=choice.image_tag,
        image_line=choice.image_line,
        overrides={override.key: override.value for override in recipe.overridden},
        engine=schema.Engine(recipe.line.engine, recipe.line.engine_version, recipe.engine.api),
        image=image,
        artefacts=artefacts,
        container=_container(recipe, image, artefacts, gpu_injection),
        serve=schema.Serve(
            port=recipe.port,
            served_names=recipe.served_names,
            max_model_len=recipe.max_model_len,
            model_root=recipe.model.container_path,
            drafter_backend=(recipe.speculative or {}).get("attention_backend"),
            prefix_caching=recipe.args.get("enable_prefix_caching") is not False,
            speculative=recipe.speculative is not None,
        ),
        memory=schema.Memory(recipe.memory_utilization) if recipe.hardware.unified_memory else None,
        timing=schema.Timing(**timing.model_dump(exclude={"stop_margin_s"})),
        gates=_gates(recipe),
        rotation=operation.rotation,
        watch=_watch(recipe, operation),
        api_key_file=deployment.api_key_file,
        unit="",
        id="",
    )
    content = replace(content, unit=serve_unit(content, operation.drop_caches))
    release = replace(content, id=content_id(written(content)))
    # What is only declared to behave like a known image was not seen itself.
    proven = catalog.proven(choice.image_tag if choice.image_line is None else "")
    return Compiled(release, recipe, tuple(findings), tuple(unlocked), proven)


def _gates(recipe: Recipe) -> schema.Gates:
    # The margins of a comparison are the controller's: a host that was proven is not proven again for them.
    asked = Node(recipe.gates.model_dump(exclude={"compare"}), "gates")
    try:
        return asked.build(schema.Gates, control_tokens=tuple(sorted(recipe.model.control_token_ids.values())))
    except Refused as problem:
        raise CatalogError(f"profile {recipe.choice.profile}: {problem}", remedy="fix the gate in its row") from None


def _watch(recipe: Recipe, operation: Operation) -> schema.WatchRules | None:
    rules, drafter = recipe.profile.watch, recipe.support
    if rules is None:
        return None
    watch = schema.WatchRules(
        enabled=operation.watch,
        restart_on_collapse=drafter is not None and drafter.restart_cures_collapse,
        **rules.model_dump(),
        # Nothing draws less than 0 W: where nobody knows, power never shortens the wait.
        wedged_power_w=recipe.hardware.wedged_power_w or 0.0,
    )
    return watch if drafter else replace(watch, min_acceptance_rate=None)


def _image(recipe: Recipe, lock: Lock | None, unlocked: list[str]) -> schema.Image:
    tag, row = recipe.choice.image_tag, recipe.image
    architecture = recipe.hardware.architecture
    locked: LockedImage | None = lock.images.get(tag) if lock else None
    if locked is None:
        unlocked.append(f"image {tag}")
        name = f"{row.repository}@{row.digest}" if row.digest else f"{row.repository}:{row.registry_tag or tag}"
        return schema.Image(row.repository, architecture, row.digest, (), name)
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
    return schema.Image(row.repository, architecture, locked.digest, tuple(ids), reference)


def _artefacts(recipe: Recipe, lock: Lock | None, unlocked: list[str]) -> tuple[schema.Artefact, ...]:
    rows: list[Model | Drafter] = [recipe.model, *([recipe.drafter] if recipe.drafter else [])]
    artefacts = []
    for role, row in zip(("target", "drafter"), rows, strict=False):
        locked = lock.repos.get(row.repo) if lock else None
        if locked is None:
            unlocked.append(f"repository {row.repo}")
        commit = locked.commit if locked else row.revision or schema.UNLOCKED
        folder = str(STATE / "models" / row.repo / commit)
        manifest = locked.manifest_sha256 if locked else None
        artefacts.append(schema.Artefact(role, row.repo, commit, folder, row.container_path, manifest))
    return tuple(artefacts)


def _container(
    recipe: Recipe, image: schema.Image, artefacts: tuple[schema.Artefact, ...], gpu_injection: Literal["gpus", "cdi"]
) -> schema.Container:
    key = (image.digest or f"tag-{recipe.choice.image_tag}").replace(":", "-")
    mounts = [schema.Mount(one.host_path, one.container_path, read_only=True) for one in artefacts]
    mounts += [
        schema.Mount(str(STATE / "cache" / key / name), target, read_only=False)
        for name, target in recipe.engine.caches.items()
    ]
    return schema.Container(
        name=CONTAINER,
        entrypoint=recipe.line.entrypoint,
        args=tuple(recipe.engine.command(recipe)),
        env=dict(recipe.env),
        mounts=tuple(mounts),
        gpu=tuple(recipe.hardware.gpu_arguments[gpu_injection]),
        options=recipe.engine.docker_options,
    )
