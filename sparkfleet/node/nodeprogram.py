"""The node's program: `sparknode/` packed as one executable zip file, the same bytes on every build."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import zipfile
from functools import cache

from sparkfleet import ROOT

INSTALL_PATH = "/usr/local/bin/sparknode"
ACTIVATE_UNIT = "sparkfleet-activate.service"
WATCH_TIMER = "sparkfleet-watch.timer"
VERIFY_TIMER = "sparkfleet-verify.timer"
READY_UNIT = "sparkfleet-ready.service"
UNITS = (
    *(ACTIVATE_UNIT, "sparkfleet-watch.service", WATCH_TIMER, "sparkfleet-verify.service", VERIFY_TIMER),
    READY_UNIT,
)
UNITS_PATH = "/etc/systemd/system"
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = """\
import sys

# Where the installation unpacked this build, and Python keeps its bytecode; a path that is not there is passed over.
sys.path.insert(0, "{modules}/{build}")

from sparknode.cli import main

sys.exit(main())
"""
UNPACK = "base64 -d | gunzip"
MODULES_PATH = "/usr/local/lib/sparknode"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@cache
def program() -> bytes:
    """Return the zipapp's bytes; they depend on nothing but the sources."""
    buffer = io.BytesIO()
    # Not compressed: every run needs the hash, few send the program.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN.format(modules=MODULES_PATH, build=build()).encode())
        for name, content in _sources().items():
            _add(archive, name, content)
        # Packed so that the program's hash also says which units were installed with it.
        for name in UNITS:
            _add(archive, name, unit(name))
    return _SHEBANG + buffer.getvalue()


@cache
def _sources() -> dict[str, bytes]:
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in sorted((ROOT / "sparknode").rglob("*.py"))}


@cache
def build() -> str:
    """Return what names the compiled form of these sources: the first 16 digits of their sha256."""
    digest = hashlib.sha256()
    for name, content in _sources().items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def trial(program_path: str, modules: str = MODULES_PATH) -> str:
    """Return the shell line that unpacks and compiles the modules of a program that is not in its place yet, and runs
    it: of a zip file Python compiles what it imports anew at each start (zipimport never writes bytecode), which costs
    more than most commands do themselves.

    The folder gets its name when all is on the disk. The build before stays, because an activation may still run it.
    """
    folder = f"{modules}/{build()}"
    unpacked = (
        f"python3 -I -m zipfile -e {program_path} {folder}.$$ && python3 -I -m compileall -q {folder}.$$/sparknode"
    )
    placed = f"sync --file-system {folder}.$$ && mv -T {folder}.$$ {folder}"
    former = f"ls -dt {modules}/* | tail -n +3 | xargs -r rm -rf"
    fill = (
        f"{{ test -d {folder} || {{ mkdir -p {modules} && {unpacked} && {placed}; }}; }} && touch {folder} && {former}"
    )
    return f"{fill} && {program_path} --version >/dev/null"


def unit(name: str) -> bytes:
    """Return one of UNITS: what carries out activations and ends interrupted ones, and the minutely look."""
    return (ROOT / "templates" / name).read_bytes()


def draining(script: str) -> str:
    """Return a shell script that also reads what its commands left of standard input: where a command ends early, what
    is still being sent to it would break the connection, and the command's own reason would be lost.
    """
    return f"{script} ; s=$?; cat >/dev/null; exit $s"


def carried(content: bytes) -> list[str]:
    """Return the lines that UNPACK turns into this content again, on a host that has nothing but a shell."""
    return base64.encodebytes(gzip.compress(content, mtime=0)).decode().splitlines()


@cache
def program_sha256() -> str:
    return hashlib.sha256(program()).hexdigest()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)
