"""`catalog check --online`: what registries and the Hub hold today, beside what the catalogue says of them.

The answers come in through `Upstream`; what they mean is decided over plain data.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import yaml

from sparkfleet.catalog.catalog import Catalog, Image
from sparkfleet.catalog.contract import version_key
from sparkfleet.errors import LockError

# A tag that begins with a date or is a version; what stands behind them is free («-aarch64», «-maxsafe»).
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(?=$|[-_.])", re.ASCII)
_VERSION = re.compile(r"(?:^|[-_])v?(\d+\.\d+\.\d+)(?=$|[-_.])", re.ASCII)


@dataclass(frozen=True)
class Upstream:
    """How to ask: the tags of a repository, the digest of one of them, and the commit of a repository's main branch.

    Each raises LockError where there is no answer.
    """

    tags: Callable[[str], list[str]]
    digest: Callable[[str, str], str]
    commit: Callable[[str], str]


def news(catalog: Catalog, upstream: Upstream, today: datetime.date) -> Iterator[str]:
    """Yield what moved, what is new with the row to add, and what could not be asked, each as a text."""
    for repository in sorted({image.repository for image in catalog.images.values()}):
        rows = {tag: image for tag, image in catalog.images.items() if image.repository == repository}
        try:
            tags = upstream.tags(repository)
        except LockError as error:
            yield f"{repository}: not checked: {error.found}"
            continue
        yield from _moved(repository, rows, tags, upstream)
        yield from _new(catalog, repository, rows, tags, upstream, today)
    for model_id, model in catalog.models.items():
        for row in model.all_repositories():
            try:
                commit = upstream.commit(row.repo)
            except LockError as error:
                yield f"models.{model_id}: {row.repo}: not checked: {error.found}"
                continue
            if row.revision and row.revision != commit:
                yield f"models.{model_id}: {row.repo} moved: revision is {row.revision}, and main is {commit}"


def _moved(repository: str, rows: Mapping[str, Image], tags: list[str], upstream: Upstream) -> Iterator[str]:
    for key, image in rows.items():
        name = image.registry_tag or key
        if name == "latest":
            continue
        if name not in tags:
            yield f"images.{key}: {repository} has no tag {name} any more"
            continue
        try:
            digest = upstream.digest(repository, name)
        except LockError as error:
            yield f"images.{key}: not checked: {error.found}"
            continue
        if image.digest is None:
            yield f"images.{key}: digest is not written down, and is {digest}"
        elif image.digest != digest:
            yield f"images.{key}: {name} was moved: digest is {image.digest}, and the registry has {digest}"


def _new(
    catalog: Catalog,
    repository: str,
    rows: Mapping[str, Image],
    tags: list[str],
    upstream: Upstream,
    today: datetime.date,
) -> Iterator[str]:
    known = {image.digest for image in rows.values() if image.digest}
    for tag in new_tags(rows, tags):
        try:
            digest = upstream.digest(repository, tag)
        except LockError as error:
            yield f"{repository}: {tag} is new, and has no digest that can be asked for: {error.found}"
            continue
        if digest not in known:
            known.add(digest)
            yield f"{repository}: {tag} is new\n{_row(catalog, repository, rows, tag, digest, today)}"


def new_tags(rows: Mapping[str, Image], tags: list[str]) -> list[str]:
    """Return the tags that are newer than those that the catalogue knows, in their order.

    A date is compared with dates, and the newest known date still counts: a day may bring several images. A version is
    compared with versions of the same ending, so that v0.34.0-x86_64 is no news beside v0.34.0.
    """
    known = [image.registry_tag or key for key, image in rows.items()]
    newest: dict[str, tuple[int, ...]] = {}
    for kind, age in filter(None, map(_age, known)):
        newest[kind] = max(age, newest.get(kind, ()))
    found = []
    for tag in set(tags) - set(known):
        aged = _age(tag)
        if aged and aged[0] in newest and (aged[1], aged[0] == "date") > (newest[aged[0]], False):
            found.append((aged[1], tag))
    return [tag for _, tag in sorted(found)]


def _age(tag: str) -> tuple[str, tuple[int, ...]] | None:
    """Return the kind of a tag and how new it is within its kind; None for one that tells neither."""
    if dated := _DATED.match(tag):
        return "date", tuple(int(part) for part in dated[0].split("-"))
    version = _VERSION.match(tag)
    return (f"version{tag[version.end() :]}", version_key(version[1])) if version else None


def _row(
    catalog: Catalog, repository: str, rows: Mapping[str, Image], tag: str, digest: str, today: datetime.date
) -> str:
    """The row to add for a new tag, as YAML; what nobody can know from outside is left to the reader."""
    before = max(rows, key=lambda key: _age(rows[key].registry_tag or key) or ("", ()))
    key = tag if _DATED.match(tag) else f"{repository.rpartition('/')[2]}-{tag.removeprefix('v')}"
    line, known = rows[before].line, catalog.line_of(rows[before])
    version = _VERSION.search(tag)
    row = {
        "repository": repository,
        **({"registry_tag": tag} if key != tag else {}),
        "line": line,
        **({"engine_version": version[1]} if version and version[1] != known.engine_version else {}),
        "state": "candidate",
        "digest": digest,
        "rollback_to": before,
        "sources": {"*": f"the registry's list of tags, {today}"},
    }
    text = yaml.safe_dump({key: row}, sort_keys=False, allow_unicode=True, width=110)
    hint = f"# {line} is the line of {before} ({known.engine} {known.engine_version}): read what changed since\n"
    return "".join(f"  {part}\n" for part in (hint + text).splitlines())


def ask(mirrors: Mapping[str, str], endpoint: str | None) -> Upstream:
    """Return the real upstream: the registries, or their mirrors, and the Hub."""
    from sparkfleet.release.registry import Registry
    from sparkfleet.release.resolve import hub_commit

    def tags(repository: str) -> list[str]:
        return Registry.of(repository, mirrors).tags()

    def digest(repository: str, tag: str) -> str:
        return Registry.of(repository, mirrors).manifest(tag)[0]

    return Upstream(tags, digest, lambda repo: hub_commit(repo, endpoint))
