"""Writing so that a power cut leaves either the old content or the new one, never a part."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file's content in one step."""
    # Not above: a probe writes nothing.
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_directory(path.parent)


def atomic_link(link: Path, target: str) -> bool:
    """Point a symbolic link at a target in one step; False when it already pointed there."""
    with suppress(OSError):
        if str(link.readlink()) == target:
            return False
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)
    sync_directory(link.parent)
    return True


def read_text(path: Path) -> str | None:
    """A file's text, or None when it can't be read; bytes that are no UTF-8 are replaced."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object that a file holds, or None when it holds none."""
    try:
        found = json.loads(read_text(path) or "")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
