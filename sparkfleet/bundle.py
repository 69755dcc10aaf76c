"""A host's bundle on the controller: one archive for its owner alone, and read back as the probe that it holds."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from sparkfleet.errors import SettingsError
from sparknode import collect, probe
from sparknode.errors import Refused


def keep(line: str, path: Path) -> dict[str, str]:
    """Write what `sparknode collect -` printed as an archive with mode 0600; return where it is, or why it is not."""
    try:
        found = json.loads(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream,
            tarfile.open(fileobj=stream, mode="w:gz") as archive,
        ):
            for name, text in found.items():
                entry, content = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}"), text.encode()
                entry.size, entry.mode = len(content), 0o600
                archive.addfile(entry, io.BytesIO(content))
    except ValueError:
        return {"no bundle": f"the node's program answered {line[:120]!r}"}
    except OSError as error:
        return {"no bundle": f"{error}; next: set runs_dir to a folder that can be written"}
    return {"bundle": str(path)}


def probe_of(path: Path) -> dict[str, Any]:
    """Return the probe that a bundle holds, an archive of `tasks/doctor.py` or a folder of `sparknode collect`.

    Raises SettingsError where there is none.
    """
    try:
        if path.is_dir():
            return probe.probe(*collect.read(path))
        with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
            return probe.probe(*collect.read(next(Path(folder).iterdir())))
    except (OSError, tarfile.TarError, StopIteration, Refused) as error:
        raise SettingsError(f"{path} is no bundle: {error}", "one that tasks/doctor.py wrote") from None
