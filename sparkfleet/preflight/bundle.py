"""Reading a bundle of `sparknode collect`, so that a report from the field is judged anywhere as its host would be."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparknode.base import parse
from sparknode.base.files import read_text
from sparknode.base.paths import Paths
from sparknode.base.process import Completed
from sparknode.base.system import Host, RealSystem
from sparknode.errors import Refused
from sparknode.facts.collect import BOM, COMMANDS, DEADLINE_S, NOT_ASKED, Raw


class Recorded(RealSystem):
    """A host that answers what the bundle holds."""

    def __init__(self, commands: Mapping[str, Completed]) -> None:
        self.answers = {done.argv: done for done in commands.values()}

    def run(self, argv: Sequence[str], timeout: float) -> Completed:
        absent = Completed(tuple(argv), 127, "", "the bundle has no answer to it", timeout)
        return self.answers.get(tuple(argv), absent)


def read(path: Path) -> tuple[Host, Raw]:
    """Return a bundle, an archive or a folder, as a host and its material; raises Refused where there is none."""
    found = _folder(path) if path.is_dir() else _archive(path)
    texts = {name: text.removeprefix(BOM) for name, text in found.items()}
    files = {name.removeprefix("files"): text for name, text in texts.items() if name.startswith("files/")}
    about = parse.json_object(texts.get("bundle.json", ""))
    unread, at = about.get("unread"), about.get("at")
    if not about:
        unread = {"bundle.json": "it is missing or damaged, so the files that the host could not read are unknown"}
    commands = {name: _answer(texts.get(f"commands/{name}.json", ""), argv) for name, argv in COMMANDS.items()}
    reasons = unread if isinstance(unread, dict) else {}
    moment = float(at) if isinstance(at, (int, float)) else 0.0
    return Host(Paths(path / "nothing"), Recorded(commands)), Raw(files, reasons, commands, moment)


def _folder(path: Path) -> dict[str, str]:
    texts = {
        file.relative_to(path).as_posix(): read_text(file) or "" for file in sorted(path.rglob("*")) if file.is_file()
    }
    if not any(name.startswith(("commands/", "files/")) for name in texts):
        raise Refused(f"{path}: no bundle is there; make one with `sparknode collect DIR`")
    return texts


def _archive(path: Path) -> dict[str, str]:
    try:
        found = _zipped(path) if zipfile.is_zipfile(path) else _tarred(path)
    except (OSError, EOFError, ValueError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as problem:
        raise Refused(f"{path}: no bundle is there ({problem}); tasks/doctor.py makes one") from None
    # Whoever packs a folder anew may pack what it lies in as well.
    cuts = [at for name in found if (at := name.find("bundle.json")) >= 0 or (at := name.find("commands/")) >= 0]
    cut = min(cuts, default=0)
    return {name[cut:]: data.decode("utf-8", "replace") for name, data in found.items()}


def _tarred(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:gz") as archive:
        streams = {member.name: archive.extractfile(member) for member in archive}
        return {name: stream.read() for name, stream in streams.items() if stream}


def _zipped(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {member.filename: archive.read(member) for member in archive.infolist() if not member.is_dir()}


def _answer(text: str, argv: tuple[str, ...]) -> Completed:
    found = parse.json_object(text)
    rc, texts = found.get("rc"), [found.get(key) for key in ("stdout", "stderr")]
    # An older sparknode may have asked otherwise, and what it heard then says something else.
    if found.get("argv") != list(argv):
        return Completed(argv, NOT_ASKED, "", "the bundle has no answer to it", DEADLINE_S)
    stdout, stderr = (text if isinstance(text, str) else "" for text in texts)
    return Completed(argv, rc if isinstance(rc, int) else None, stdout, stderr, DEADLINE_S)
