"""`lock`: writes fleet.lock.json anew from registry and Hub, and reports what moved.

An old lock that cannot be read, or that contradicts the catalogue of today, is no obstacle: this command is its remedy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkfleet.catalog.catalog import Catalog, Drafter, Model
from sparkfleet.errors import LockError, SettingsError, nearest
from sparkfleet.inventory.settings import Settings, parse_settings
from sparkfleet.release import contents, lockfile, weights
from sparkfleet.release.recipe import find_image

MOVED = 1


@dataclass(frozen=True)
class Wanted:
    """What the inventory serves: tags with the line that an unknown one behaves like, and models."""

    tags: Mapping[str, str | None]
    models: tuple[str, ...]
    # Drafters that the profiles name instead of a model's own.
    drafters: frozenset[str] = frozenset()


def run(options: argparse.Namespace) -> int:
    """Resolve everything; write the lock, or with `--check` report what moved. Raises FleetError."""
    settings = _settings(options.inventory or "inventory/prod.py", options.data)
    first, known = settings[0], settings[0].catalog()
    old = _old(first.lock_path)
    if options.check and old is None:
        raise LockError(
            f"there is no {first.lock_file} to compare with", "a lock", "run `python -m sparkfleet lock` and commit it"
        )
    tags = {setting.image_tag: setting.image_line for setting in settings}
    profiles = [known.profiles[setting.profile] for setting in settings if setting.profile in known.profiles]
    named = frozenset(profile.drafter for profile in profiles if profile.drafter)
    wanted = Wanted(tags, tuple(sorted({setting.model for setting in settings})), named)
    new = resolved(first, known, wanted, old)
    moved = lockfile.changes(old, new)
    for line in moved:
        print(line)
    if options.check:
        if moved:
            print("upstream moved since the lock; that is news, and no reason to deploy", file=sys.stderr)
        return MOVED if moved else 0
    new = checked(new, old, known, wanted, first.hub_endpoint)
    if new == old:
        print(f"{first.lock_file} is up to date")
        return 0
    _write(first.lock_path, new.dumps())
    print(f"wrote {first.lock_file}: review it in version control and commit it")
    return 0


def resolved(first: Settings, known: Catalog, wanted: Wanted, old: lockfile.Lock | None) -> lockfile.Lock:
    """Return the lock of today: what is wanted must resolve, and what is not wanted any more stays where it can."""
    from sparkfleet.release.resolve import images_to_lock, resolve_image, resolve_repo

    images = {}
    tags = images_to_lock(known, list(wanted.tags))
    for tag in [*tags, *(tag for tag in (old.images if old else {}) if tag not in tags)]:
        if tag not in tags and tag not in known.images:
            _tell(f"image {tag} leaves the lock: no host has it and the catalogue does not know it")
            continue
        image, _, _ = find_image(known, tag, wanted.tags.get(tag))
        _tell(f"resolving image {image.repository}:{image.registry_tag or tag}")
        try:
            images[tag] = resolve_image(tag, image, first.registry_mirrors)
        except LockError as error:
            if tag in tags or old is None:
                raise
            _tell(f"image {tag} stays as it was locked, no host has it: {error.found}")
            images[tag] = old.images[tag]
    repos = dict(old.repos) if old else {}
    for model_id in wanted.models:
        if model_id not in known.models:
            raise SettingsError(
                f"model '{model_id}' is not in the catalogue{nearest(model_id, list(known.models))}",
                f"one of {', '.join(sorted(known.models))}",
            )
        for row in _wanted_of(known.models[model_id], wanted.drafters):
            _tell(f"resolving repository {row.repo}")
            repos[row.repo] = resolve_repo(row.repo, row.revision, first.hub_endpoint)
    return lockfile.Lock(schema=lockfile.SCHEMA, images=images, repos=_fitting(known, repos))


def checked(
    new: lockfile.Lock, old: lockfile.Lock | None, known: Catalog, wanted: Wanted, endpoint: str | None
) -> lockfile.Lock:
    """Return the lock with what was held against the files of each wanted repository; raises LockError.

    What the old lock vouches for is not read again: the same bytes hold the same.
    """
    vouched = {
        repo: locked.content
        for repo, locked in (old.repos if old else {}).items()
        if repo in new.repos and locked.manifest_sha256 == new.repos[repo].manifest_sha256
    }
    found: dict[str, set[str]] = {}
    for model in (known.models[model_id] for model_id in wanted.models):
        for row in _wanted_of(model, wanted.drafters):
            expected = weights.expected_of(model, row, new.repos[model.repo].commit)
            if expected.key not in vouched.get(row.repo, []):
                _tell(f"reading what the files of {row.repo} hold")
                contents.require(new, row.repo, expected, endpoint)
            found.setdefault(row.repo, set()).add(expected.key)
    kept = {repo: sorted(found.get(repo, vouched.get(repo, []))) for repo in new.repos}
    repos = {repo: locked.model_copy(update={"content": kept[repo]}) for repo, locked in new.repos.items()}
    return new.model_copy(update={"repos": repos})


def _wanted_of(model: Model, drafters: frozenset[str]) -> list[Model | Drafter]:
    """Return the target with its own drafter, and those of its others that profiles name."""
    return [*model.repositories(), *(row for name, row in model.other_drafters.items() if name in drafters)]


def _fitting(known: Catalog, repos: Mapping[str, lockfile.LockedRepo]) -> dict[str, lockfile.LockedRepo]:
    """Leave out what another catalogue pinned: a repository that no host serves now and whose revision moved."""
    pins = {
        row.repo: row.revision for model in known.models.values() for row in model.all_repositories() if row.revision
    }
    kept = {repo: locked for repo, locked in repos.items() if pins.get(repo, locked.commit) == locked.commit}
    for repo in sorted(repos.keys() - kept.keys()):
        _tell(f"repository {repo} leaves the lock: no host serves it and the catalogue pins {pins[repo][:12]} now")
    return kept


def _settings(inventory: str, data: Sequence[str]) -> list[Settings]:
    from sparkfleet.inventory.inventory import read_inventory

    settings = [parse_settings(entry.name, entry.data) for entry in read_inventory(inventory, data)]
    if not settings:
        raise SettingsError(f"{inventory} has no host", "at least one host")
    files = {setting.lock_file for setting in settings}
    if len(files) > 1:
        raise SettingsError(f"{inventory} names several lock files: {', '.join(sorted(files))}", "one")
    return settings


def _old(path: Path) -> lockfile.Lock | None:
    try:
        return lockfile.parse(path)
    except LockError as error:
        _tell(f"the old lock is not used, and everything is resolved anew: {error.found}")
        return None


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
