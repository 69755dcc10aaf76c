"""`catalog check`: the catalogue held against what can be known without a GPU.

Pure: each problem is a sentence that names the row and the cell. `sparkfleet.cli.catalog_online` asks registry and Hub.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparkfleet.catalog.catalog import Catalog, Image, Line, Sourced, load
from sparkfleet.catalog.contract import Contract
from sparkfleet.errors import FleetError, SettingsError, nearest
from sparkfleet.release.engine import engines
from sparkfleet.release.recipe import Choice, compile_recipe
from sparkfleet.release.rules import Deployment, failures

_SECTIONS = ("lines", "images", "models", "profiles", "hardware")
# Everything that a host's owner decides is taken as decided: the row itself is judged.
_SETTLED = Deployment(allow_unauthenticated="a check of the catalogue", terms_accepted=True, image_locked=True)


def add_commands(commands: Any) -> None:
    parser = commands.add_parser("catalog", help="check the catalogue against contracts, sources, registry and Hub")
    check = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("check", help="print the wrong rows")
    check.add_argument("--online", action="store_true", help="also query registry and Hub: what moved, and new tags")
    check.add_argument("--catalog-overlay", action="append", default=[], type=Path, metavar="FOLDER")
    check.add_argument(
        "--registry-mirror", action="append", default=[], metavar="HOST=URL", help="URL to query instead of HOST"
    )
    check.add_argument("--hub-endpoint", metavar="URL", help="URL to query instead of the Hub")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    """Print what is wrong and, with --online, what moved; 1 when there is any of it."""
    catalog = load(tuple(path.resolve() for path in options.catalog_overlay))
    found = problems(catalog)
    for problem in found:
        print(f"problem: {problem}")
    news: list[str] = []
    if options.online:
        from sparkfleet.cli import catalog_online

        upstream = catalog_online.ask(_mirrors(options.registry_mirror), options.hub_endpoint)
        for text in catalog_online.news(catalog, upstream, datetime.datetime.now(datetime.UTC).date()):
            print(f"upstream: {text}", flush=True)
            news.append(text)
    rows = sum(len(getattr(catalog, section)) for section in _SECTIONS)
    asked = f", {len(news)} news from registry and Hub" if options.online else ""
    print(f"{rows} rows of the catalogue: {len(found)} problems{asked}")
    return 1 if found or news else 0


def _mirrors(texts: list[str]) -> dict[str, str]:
    pairs = {host: url for host, _, url in (text.partition("=") for text in texts)}
    if wrong := next((host for host, url in pairs.items() if not url.startswith(("http://", "https://"))), None):
        raise SettingsError(
            f"--registry-mirror {wrong} has no URL", "HOST=URL, for example docker.io=http://localhost:5000"
        )
    return pairs


def problems(catalog: Catalog) -> list[str]:
    """Return what is wrong with the rows, a sentence each."""
    return [*_sources(catalog), *_contracts(catalog), *_images(catalog), *_defaults(catalog)]


def _sources(catalog: Catalog) -> Iterator[str]:
    """Every cell that somebody wrote has a source, and every source is of a cell."""
    for section in _SECTIONS:
        rows: Mapping[str, Sourced] = getattr(catalog, section)
        for row_id, row in rows.items():
            where = f"{section}.{row_id}.sources"
            cells = row.model_fields_set - {"sources"}
            named = {key.partition(".")[0] for key in row.sources}
            if "*" not in named:
                for cell in sorted(cells - named):
                    yield f"{where} has no entry for {cell}, and no «*»"
            known = type(row).model_fields.keys() - {"sources"} | {"*"}
            for key in sorted(named - known):
                yield f"{where} has an entry for {key}, which is no cell{nearest(key, sorted(known))}"
            for key in sorted(key for key, text in row.sources.items() if not text.strip()):
                yield f"{where}.{key} is empty"


def _contracts(catalog: Catalog) -> Iterator[str]:
    for line_id, line in catalog.lines.items():
        versions = {image.engine_version or line.engine_version for image in _images_of(catalog, line_id)}
        for version in sorted(versions | {line.engine_version}):
            built = line.model_copy(update={"engine_version": version})
            yield from (f"lines.{line_id}.{text}" for text in _contract(built))


def _contract(line: Line) -> Iterator[str]:
    """What the line sets or lists, against the recorded command line of its version."""
    contract = line.contract
    if not contract.exact:
        yield f"engine_version: the command line of {contract} was not recorded; pin its wheel and run `make contracts`"
    for key, value in line.args.items():
        flag = contract.flags.get(key)
        if flag is None:
            option = f"--{key.replace('_', '-')}"
            yield f"args.{key} is no argument of {contract}{contract.elsewhere('options', option)}"
        elif value is not None and (problem := flag.problem_with(value)):
            yield f"args.{key} {problem} ({contract})"
    cache = contract.flags.get("kv_cache_dtype")
    for value in line.kv_cache_dtypes if cache else ():
        if cache and (problem := cache.problem_with(value)):
            yield f"kv_cache_dtypes: {cache.option} {problem} ({contract})"
    if line.engine == "vllm":
        yield from _variables(line, contract)
        yield from _drafters(line, contract)


def _variables(line: Line, contract: Contract) -> Iterator[str]:
    for cell, names in (("env", line.env), ("env_deprecated", line.env_deprecated)):
        for name in sorted(name for name in names if name.startswith("VLLM_") and name not in contract.env):
            yield f"{cell}.{name} is no variable of {contract}{contract.elsewhere('env', name)}"
    for name in sorted(line.env_removed.keys() & contract.env):
        yield f"env_removed.{name} is still a variable of {contract}"
    for cell, instead in (("env_removed", line.env_removed), ("env_deprecated", line.env_deprecated)):
        for name, flag in instead.items():
            if flag and flag.split()[0] not in contract.options:
                yield f"{cell}.{name} names {flag.split()[0]}, which is no flag of {contract}"


def _drafters(line: Line, contract: Contract) -> Iterator[str]:
    for method, support in line.drafters.items():
        where = f"drafters.{method}"
        if method not in contract.spec_methods:
            yield f"{where} is no method of {contract}{contract.elsewhere('spec_methods', method)}"
        backends = {*support.works, *support.refused_backends, *([support.backend] if support.backend else [])}
        for backend in sorted(backends):
            if backend.upper() not in contract.attention_backends:
                yield f"{where} names {backend}, which is no attention backend of {contract}"
        if support.backend in support.refused_backends:
            yield f"{where}.backend is {support.backend}, which refused_backends refuses"
        if support.backend and "attention_backend" not in contract.spec_fields:
            yield f"{where}.backend is {support.backend}, and the speculative config of {contract} has no such key"


def _images_of(catalog: Catalog, line_id: str) -> list[Image]:
    return [image for image in catalog.images.values() if image.line == line_id]


def _images(catalog: Catalog) -> Iterator[str]:
    """Digests, and the way back of each image."""
    by_digest: dict[str, str] = {}
    for tag, image in catalog.images.items():
        where = f"images.{tag}"
        if image.digest is not None:
            first = by_digest.setdefault(f"{image.repository}@{image.digest}", tag)
            if first != tag:
                yield f"{where}.digest is that of {first}, too"
        elif image.registry_tag == "latest" and engines()[catalog.line_of(image).engine].deployable:
            yield f"{where} is whatever :latest is, with no digest"
        if image.rollback_to is None and "rollback_to" not in image.sources:
            yield f"{where}.rollback_to is missing; name the image to roll back to, or give a reason in sources"
        if tag in catalog.ways_back(tag):
            yield f"{where}.rollback_to leads back to itself: {' → '.join(catalog.ways_back(tag))}"
    for line_id in sorted(catalog.lines.keys() - {image.line for image in catalog.images.values()}):
        yield f"lines.{line_id} has no image"


def _defaults(catalog: Catalog) -> Iterator[str]:
    """No image whose default profile its own rules refuse."""
    model = next(iter(catalog.models))
    for tag, image in catalog.images.items():
        line = catalog.line_of(image)
        profile = default_profile(catalog, line, model)
        hardware = next(
            (name for name, row in catalog.hardware.items() if row.architecture in line.architectures), None
        )
        if profile is None or hardware is None:
            missing = "profile of its engine" if profile is None else "hardware of its architecture"
            yield f"images.{tag}: the catalogue has no {missing}"
            continue
        if not engines()[line.engine].deployable:
            continue
        try:
            recipe = compile_recipe(catalog, Choice(model, tag, profile, hardware))
            refusals = [f"{finding.id}: {finding.found}" for finding in failures(recipe, _SETTLED)]
        except FleetError as error:
            refusals = [error.found]
        for refusal in refusals:
            yield f"images.{tag}: its default profile {profile} is refused for {model}: {refusal}"


def default_profile(catalog: Catalog, line: Line, model: str) -> str | None:
    """Return the first profile of the line's engine that drafts where the line can with the model's drafter."""
    drafter = catalog.models[model].drafter
    drafts = drafter is not None and drafter.method in line.drafters
    profiles = catalog.profiles.items()
    return next((name for name, row in profiles if row.engine == line.engine and row.speculative is drafts), None)
