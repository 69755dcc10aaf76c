"""Which model and drafter of the catalogue a foreign command line serves, by repository or by folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from sparkfleet.catalog.arguments import Reading
from sparkfleet.catalog.catalog import Catalog, Drafter, Model
from sparkfleet.errors import SettingsError, nearest
from sparkfleet.interop.served import MARK, Mount, Served, cannot_carry

_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+?)(/snapshots/([0-9a-f]{40}))?(/|$)")
_COMMIT = re.compile(r"/([0-9a-f]{40})/?$")


@dataclass
class ForeignModel:
    """A model as the command names it, with its row where there is one; `words` are all names that mean it."""

    name: str
    id: str | None
    row: Model | None
    mounts: list[Mount]
    words: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def served_names(self, names: list[str] | None, notes: list[str]) -> list[str] | None:
        """Return the names as the operator chose them, or None where they are the model's own."""
        ours = self.row.served_names if self.row else None
        if names is None and "/" in self.name.strip("/") and not self.name.startswith("/"):
            # Without a name, vLLM answers to the repository's.
            names = [self.name]
        if names is None:
            notes.append(
                f"It sets no served name; a release answers to {', '.join(ours or ['the names of the model'])}"
            )
            return None
        if names == ours:
            return None
        if ours:
            notes.append(f"It is served as {', '.join(names)}, and not as {', '.join(ours)}")
        return names

    def own_speculation(self, config: dict[str, Any], notes: list[str]) -> tuple[str | None, dict[str, Any]]:
        """Return the profile's name for the drafter, None for the model's own, and what the config says beside it.

        Raises SettingsError for a drafter that the catalogue does not have.
        """
        special = dict(config)
        named = special.pop("model", None)
        own = self.row.drafter if self.row else None
        if named is None or named in self.words:
            if own is None or special.get("method") != own.method:
                notes.append(
                    f"Method {special.get('method')} drafts without a drafter of its own: there is none to add"
                )
                return None, special
            named = own.repo
        others = self.row.other_drafters if self.row else {}
        drafters: dict[str | None, Drafter | None] = {None: own}
        drafters.update(others)
        found = [(name, row) for name, row in drafters.items() if row and self._is_drafter(row, named)]
        if not found:
            known = " or ".join(row.repo for row in drafters.values() if row)
            expected = f"{known}, the model's drafter in the catalogue" if known else "a drafter of the catalogue"
            what = f"model {named!r}" if known else f"the drafter {named}, and the catalogue has none for {self.name}"
            remedy = "add the model with this drafter to catalog/models.yaml first"
            raise cannot_carry(f"the speculative config has {what}", expected, remedy)
        name, drafter = found[0]
        if special.get("method") == drafter.method:
            special.pop("method")
        revision = special.pop("revision", None)
        if revision is not None and revision != drafter.revision:
            serves = f"a release serves the catalogue's {drafter.revision}" if drafter.revision else "the lock decides"
            notes.append(f"It pins the drafter to {revision}, and {serves}")
        return name, special

    def _is_drafter(self, drafter: Drafter, named: Any) -> bool:
        if not isinstance(named, str):
            return False
        return named in (drafter.repo, drafter.container_path) or drafter.repo in _repositories(named, self.mounts)

    def speculation_differences(self, theirs: Any, ours: dict[str, Any]) -> list[str]:
        added = {key: value for key, value in ours.items() if key not in theirs and key != "model"}
        lost = [key for key, value in theirs.items() if key not in ("model", "revision") and ours.get(key) != value]
        if lost:
            found = "; ".join(f"{key} of the speculative config is {theirs[key]}, not {ours.get(key)}" for key in lost)
            raise cannot_carry(found, "what the catalogue's drafter has")
        named = theirs.get("model")
        if (named is None or named in self.words) and "model" in ours:
            found = f"it drafts with the target's own heads, and a release would use {ours['model']}"
            raise cannot_carry(found, "the catalogue's drafter")
        if not added:
            return []
        return [f"The drafter also gets {', '.join(f'{key}: {value}' for key, value in added.items())}."]


def find(catalog: Catalog, served: Served, reading: Reading, chosen: str | None) -> ForeignModel:
    """Find the model by what the command serves; raises SettingsError when it serves none or another than it says."""
    named = reading.positional[0] if reading.positional else served.model
    if named is None or len(reading.positional) > 1:
        found = f"the command serves {' '.join(reading.positional) or 'no model'}"
        raise cannot_carry(found, "one model", "check the command")
    if served.model is not None and named != served.model:
        raise cannot_carry(f"the command serves {named}", served.model)
    if MARK in named:
        raise cannot_carry(
            f"the command needs a shell: {named}", "a model's name", "give the variable a value in the file"
        )
    repositories = [named, *_repositories(named, served.mounts)]
    if chosen is not None and chosen not in catalog.models:
        known = list(catalog.models)
        raise SettingsError(
            f"model '{chosen}' is not in the catalogue{nearest(chosen, known)}", f"one of {', '.join(known)}"
        )
    by_repo = [key for key, row in catalog.models.items() if _matches(row.repo, repositories)]
    by_folder = [key for key, row in catalog.models.items() if row.container_path == named.rstrip("/")]
    found_id = chosen or next(iter(by_repo or (by_folder if len(by_folder) == 1 else [])), None)
    model = ForeignModel(named, found_id, catalog.models[found_id] if found_id else None, served.mounts, (named,))
    if model.row is not None:
        model.words = (named, model.row.repo, model.row.container_path)
        if not by_repo and chosen is None:
            model.notes.append(f"{named} was taken for {model.row.repo}, whose folder it is in the catalogue")
        commit = _commit(named, served.mounts)
        if commit and commit != model.row.revision:
            model.notes.append(
                f"Its folder is of revision {commit}; a release serves {model.row.revision or 'the lock’s'}"
            )
    elif named.startswith("/"):
        among = f", one of {', '.join(by_folder)}" if by_folder else ""
        model.notes.append(f"{named} is a folder{among}: name its model with --model, or add it to catalog/models.yaml")
    return model


def _matches(repo: str, names: list[str]) -> bool:
    return any(name.lower() in (repo.lower(), repo.rpartition("/")[2].lower()) for name in names)


def _repositories(named: str, mounts: list[Mount]) -> list[str]:
    """Return what a folder's place on the host says of its repository: the cache's layout, or its last parts."""
    names = []
    for path in [named, *_sources(named, mounts)]:
        if snapshot := _SNAPSHOT.search(path):
            names.append(f"{snapshot[1]}/{snapshot[2]}")
        elif "/" in path.strip("/"):
            parts = [part for part in _COMMIT.sub("", path).split("/") if part]
            names += ["/".join(parts[-2:]), parts[-1]]
    return names


def _sources(named: str, mounts: list[Mount]) -> list[str]:
    return [
        mount.source + named[len(mount.target.rstrip("/")) :]
        for mount in mounts
        if named == mount.target or named.startswith(f"{mount.target.rstrip('/')}/")
    ]


def _commit(named: str, mounts: list[Mount]) -> str | None:
    for path in [named, *_sources(named, mounts)]:
        if (snapshot := _SNAPSHOT.search(path)) and snapshot[4]:
            return snapshot[4]
        if found := _COMMIT.search(path):
            return found[1]
    return None
