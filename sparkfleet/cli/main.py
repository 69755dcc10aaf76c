"""The commands of `python -m sparkfleet`. Exit codes: 0 done, 1 something moved or failed, 2 refused."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from sparkfleet import ROOT, secrets
from sparkfleet.catalog import catalog
from sparkfleet.catalog.yamltext import parse_yaml
from sparkfleet.cli import catalog_check, configuration, frontdoor
from sparkfleet.errors import FleetError, SettingsError, nearest
from sparkfleet.interop import EXPORTS, docker_model_commands, import_recipe
from sparkfleet.inventory.settings import parse_settings
from sparkfleet.preflight import bundle, preflight, seen
from sparkfleet.preflight.handbook import handbook
from sparkfleet.preflight.seen import Seen
from sparkfleet.release import lockfile
from sparkfleet.release.deepcheck import deep_check
from sparkfleet.release.recipe import Choice
from sparkfleet.release.release import Compiled, compile_release
from sparkfleet.release.rules import Deployment
from sparknode.base.shape import written
from sparknode.errors import Refused
from sparknode.facts import probe


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words and words[0] in frontdoor.TASKS:
            frontdoor.run(words[0], words[1:])
        parser, own = _parser()
        if not words:
            print(frontdoor.overview(own))
            return 0
        options = parser.parse_args(words)
        secrets.provide()
        return int(options.run(options))
    except FleetError as error:
        print(f"refused: {error.text()}", file=sys.stderr)
        return 2


def _parser() -> tuple[argparse.ArgumentParser, dict[str, str]]:
    """Return the parser, and the commands that are not pyinfra's with a line each."""
    parser = argparse.ArgumentParser(prog="sparkfleet", description="Fleets of DGX Spark machines.")
    parser.add_argument("--version", action="version", version=f"sparkfleet {version('sparkfleet')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in frontdoor.TASKS:
        task = commands.add_parser(name, help=frontdoor.purpose(name), add_help=False)
        task.add_argument("-i", "--inventory", help=f"default: {frontdoor.DEFAULT_INVENTORY}")
        task.add_argument("pyinfra", nargs=argparse.REMAINDER, help="pyinfra's options")

    chosen = _choice_parser()
    show = commands.add_parser("show", parents=[chosen], help="print what would run, without connecting to anything")
    show.add_argument("--format", choices=FORMATS, default="unit", help="default: unit")
    show.set_defaults(run=_show)

    export = commands.add_parser("export-recipe", parents=[chosen], help="print a release as a recipe of another tool")
    export.add_argument("--format", choices=EXPORTS, default="sparkrun", help="default: sparkrun")
    export.set_defaults(run=_export)

    importing = commands.add_parser("import-recipe", help="print another tool's recipe as a profile")
    importing.add_argument(
        "file", type=Path, metavar="FILE", help="a recipe, Compose file, script or unit; - for stdin"
    )
    importing.add_argument("--model", metavar="ID", help="the model of the catalogue, if the file names a folder")
    importing.add_argument("--service", metavar="NAME", help="the service or container, if the file has several")
    importing.add_argument("--catalog-overlay", action="append", default=[], type=Path, metavar="FOLDER")
    importing.set_defaults(run=_import)

    locking = commands.add_parser("lock", help="pin tags to digests and repositories to commits and hashes")
    locking.add_argument("--inventory", help="take settings and images from an inventory")
    locking.add_argument("--data", action="append", default=[], metavar="KEY=VALUE")
    locking.add_argument("--check", action="store_true", help="print what moved since the lock; write nothing")
    locking.set_defaults(run=_lock)

    configuration.add_commands(commands)
    catalog_check.add_commands(commands)
    _add_enroll(commands)
    explain = commands.add_parser("explain", help="what an id means: rule, check, gate, state or exit code")
    explain.add_argument("id", nargs="?", metavar="ID")
    explain.add_argument("--preflight", action="store_true", help="print docs/preflight.md: every check of a host")
    explain.add_argument(
        "--status", action="store_true", help="print docs/node-status.md: what a node reports of itself"
    )
    explain.add_argument("--facts", action="store_true", help="print docs/facts.md: what a node reports of its host")
    explain.add_argument("--release", action="store_true", help="print docs/release.md: each key of a release")
    explain.set_defaults(run=_explain)

    checking = commands.add_parser("check", parents=[_choice_parser(host=False)], help="judge a host by its probe")
    checking.add_argument("probe", type=Path, help="a bundle, or what `sparknode probe` printed; - for stdin")
    checking.add_argument("--json", action="store_true", help="print the findings as JSON")
    checking.set_defaults(run=_check, host=None)

    completing = commands.add_parser("completion", help="print a shell's completion script")
    completing.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    completing.set_defaults(run=lambda options: _completion(parser, options.shell))
    helps = {action.dest: action.help or "" for action in commands._choices_actions}
    return parser, {name: text for name, text in helps.items() if name not in frontdoor.TASKS}


def _completion(parser: argparse.ArgumentParser, shell: str) -> int:
    import shtab

    print(shtab.complete(parser, shell=shell))
    return 0


def _add_enroll(commands: Any) -> None:
    parser = commands.add_parser(
        "enroll", help="make a new host reachable: pin its key, install yours, check sudo, look"
    )
    parser.add_argument("host", help="name or address, as it will stand in the inventory")
    for name, default, text in (
        ("--inventory", "inventory/prod.py", "where it joins"),
        ("--group", "fleet", "the inventory's list that it joins"),
        ("--user", "nvidia", "the first-boot user"),
        ("--key", "~/.ssh/id_ed25519", "your private key, with .pub beside it"),
        ("--known-hosts", "inventory/known_hosts", "where its key is pinned; commit it"),
        ("--address", None, "its address, if that is not its name"),
        ("--accept", None, "the fingerprint to expect (SHA256:…), instead of a question"),
    ):
        parser.add_argument(name, default=default, help=f"{text}; default: {default}" if default else text)
    parser.add_argument("--port", type=int, default=22)
    for name, text in (
        ("--write", "add the line to the inventory, and not only print it"),
        ("--renew", "pin a new key for a host that was installed anew"),
        ("--sudoers", "write a sudoers drop-in if sudo asks for a password"),
        ("--password-stdin", "read the password from standard input"),
    ):
        parser.add_argument(name, action="store_true", help=text)
    parser.set_defaults(run=_enroll)


def _enroll(options: argparse.Namespace) -> int:
    # Not above: it brings paramiko and pyinfra, and everything else here connects to nothing.
    from sparkfleet.cli.enroll import enroll

    return enroll(options)


def _choice_parser(*, host: bool = True) -> argparse.ArgumentParser:
    """The options that choose what to look at: a host of an inventory, or rows of the catalogue."""
    chosen = argparse.ArgumentParser(add_help=False)
    if host:
        chosen.add_argument("host", nargs="?", help="a host of the inventory")
        chosen.add_argument("--inventory", help="an inventory file, e.g. inventory/prod.py")
        chosen.add_argument("--data", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    first = None if host else next(iter(catalog.load().models))
    chosen.add_argument(
        "--model", default=first, help="a model of the catalogue" + (", instead of a host" if host else "")
    )
    chosen.add_argument("--image-tag", help="an image of the catalogue")
    chosen.add_argument("--image-line", help="the known line that an unknown tag behaves like")
    chosen.add_argument("--profile", default="agentic", help="default: agentic")
    chosen.add_argument("--hardware", default="gb10", help="default: gb10")
    chosen.add_argument("--gpu-injection", choices=("gpus", "cdi"), default="gpus")
    chosen.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="try an engine argument")
    chosen.add_argument("--served-name", action="append", metavar="NAME", help="a name to serve the model under")
    chosen.add_argument("--lock-file", default="fleet.lock.json")
    chosen.add_argument("--catalog-overlay", action="append", default=[], type=Path, metavar="FOLDER")
    return chosen


def _value(text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


def _pairs(texts: list[str]) -> dict[str, Any]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SettingsError(f"'{text}' is no KEY=VALUE", "for example max_num_seqs=16")
        pairs[key] = _value(value)
    return pairs


def _compiled(options: argparse.Namespace) -> Compiled:
    """Compile what the options choose, with everything that is to be said about it on stderr."""
    compiled = _compiled_for_host(options) if options.host else _compiled_for_choice(options)
    for words in compiled.overridden:
        print(f"overridden: {words}", file=sys.stderr)
    for words in compiled.remarks():
        print(f"info: {words}", file=sys.stderr)
    for finding in compiled.findings:
        print(f"{finding.severity}: {finding.text()}", file=sys.stderr)
    if compiled.unlocked:
        names = ", ".join(compiled.unlocked)
        print(f"info: not locked: {names}; a deploy needs `python -m sparkfleet lock` first", file=sys.stderr)
    return compiled


def _show(options: argparse.Namespace) -> int:
    compiled = _compiled(options)
    print(FORMATS[options.format](compiled), end="")
    return 0


def _as_argv(compiled: Compiled) -> str:
    return json.dumps(compiled.argv, ensure_ascii=False) + "\n"


def _as_json(compiled: Compiled) -> str:
    return json.dumps(written(compiled.release), indent=2, ensure_ascii=False) + "\n"


def _as_deep_check(compiled: Compiled) -> str:
    return shlex.join(deep_check(compiled.recipe, compiled.release)) + "\n"


FORMATS: dict[str, Callable[[Compiled], str]] = {
    "unit": lambda compiled: compiled.release.unit,
    "argv": _as_argv,
    "json": _as_json,
    "deep-check": _as_deep_check,
    "docker-model": lambda compiled: docker_model_commands(compiled.recipe),
}


def _export(options: argparse.Namespace) -> int:
    print(EXPORTS[options.format](_compiled(options)), end="")
    return 0


def _import(options: argparse.Namespace) -> int:
    known = catalog.load(_overlays(options))
    try:
        text = sys.stdin.read() if str(options.file) == "-" else options.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{options.file} cannot be read: {error}", "a recipe file", "check the path") from None
    print(import_recipe(text, options.file.name, known, options.model, options.service).text(), end="")
    return 0


def _trial(deployment: Deployment) -> Deployment:
    """Looking is allowed before keys and terms are settled; a deploy is not."""
    return replace(deployment, trial=True)


def _compiled_for_host(options: argparse.Namespace) -> Compiled:
    from sparkfleet.inventory.inventory import find_host, read_inventory

    if not options.inventory:
        raise SettingsError(
            f"host {options.host} was given without an inventory",
            "--inventory FILE",
            "add --inventory inventory/prod.py",
        )
    entry = find_host(read_inventory(options.inventory, options.data), options.host)
    settings = parse_settings(entry.name, entry.data)
    known = settings.catalog()
    choice = replace(settings.choice, overrides={**settings.overrides, **_pairs(options.set)})
    if options.served_name:
        choice = replace(choice, served_names=tuple(options.served_name))
    locked = lockfile.read(settings.lock_path, known)
    return compile_release(
        known, locked, choice, _trial(settings.deployment), settings.gpu_injection, settings.operation
    )


def _compiled_for_choice(options: argparse.Namespace) -> Compiled:
    for name in ("model", "image_tag"):
        if not getattr(options, name):
            flag = f"--{name.replace('_', '-')}"
            raise SettingsError(f"{flag} is missing", "a HOST with --inventory, or --model and --image-tag")
    known = catalog.load(_overlays(options))
    choice = Choice(
        model=options.model,
        image_tag=options.image_tag,
        profile=options.profile,
        hardware=options.hardware,
        image_line=options.image_line,
        overrides=_pairs(options.set),
        served_names=tuple(options.served_name) if options.served_name else None,
    )
    locked = lockfile.read(ROOT / options.lock_file, known)
    return compile_release(known, locked, choice, Deployment(trial=True), options.gpu_injection)


def _lock(options: argparse.Namespace) -> int:
    from sparkfleet.cli import locking

    return locking.run(options)


def _check(options: argparse.Namespace) -> int:
    """Say what is unfit; 1 when something is."""
    node = _seen(options.probe)
    compiled, known = _compiled_for_choice(options), catalog.load(_overlays(options))
    findings = preflight.check(node, compiled.release, known)
    if options.json:
        print(json.dumps(preflight.of_host(str(options.probe), node, findings, known), indent=1, ensure_ascii=False))
    else:
        print(
            "\n".join(
                [*(f"{one.severity}: {one.text()}" for one in findings), "fit" if preflight.fit(findings) else "unfit"]
            )
        )
    return 0 if preflight.fit(findings) else 1


def _seen(path: Path) -> Seen:
    try:
        if path.is_dir() or (path.is_file() and _packed(path)):
            return seen.of_document(probe.probe(*bundle.read(path)))
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, Refused) as error:
        raise SettingsError(f"{path} cannot be read: {error}", "a probe or a bundle", "check the path") from None
    return seen.read(text.strip())


def _packed(path: Path) -> bool:
    """Whether it begins as gzip and zip do."""
    with path.open("rb") as stream:
        return stream.read(2) in (b"\x1f\x8b", b"PK")


def _overlays(options: argparse.Namespace) -> tuple[Path, ...]:
    return tuple(path.resolve() for path in options.catalog_overlay)


def _explain(options: argparse.Namespace) -> int:
    if options.preflight:
        print(handbook(), end="")
        return 0
    pages = {"status": options.status, "facts": options.facts, "release": options.release}
    if any(pages.values()):
        from sparkfleet.cli.schema_page import PAGES

        print(PAGES[next(name for name, asked in pages.items() if asked)](), end="")
        return 0
    from sparkfleet.cli.explain import explanation, known

    if options.id is None:
        for name, line in known().items():
            print(f"{name:30}{line}")
        return 0
    try:
        print(explanation(options.id))
    except KeyError:
        raise SettingsError(
            f"nothing of the name '{options.id}' is printed anywhere{nearest(options.id, list(known()))}",
            "a rule, a check, a gate, a state of the journal or an exit code",
            "python -m sparkfleet explain  # lists all of them",
        ) from None
    return 0
