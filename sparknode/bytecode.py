"""The program's modules compiled by this host's Python: a zip file is compiled anew at each start, which costs more
than most commands do themselves (zipimport, Python's library reference: it never writes bytecode).
"""

from __future__ import annotations

import py_compile
import sys
import tempfile
import zipfile
from pathlib import Path

from sparknode.files import atomic_write
from sparknode.paths import Paths


def compile_program(paths: Paths, archive: Path, build: str) -> Path:
    """Write what `__main__` of this build looks for; return its path.

    The file's name has Python's cache tag: another Python finds none and runs the sources. The build before stays,
    because an activation may still run it.
    """
    target = paths.bytecode / f"{build}.{sys.implementation.cache_tag}.zip"
    former = sorted(paths.bytecode.glob("*.zip"), key=lambda path: path.stat().st_mtime)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as packed:
        compiled = Path(folder, "compiled.zip")
        with zipfile.ZipFile(compiled, "w") as out:
            for name in packed.namelist():
                if not name.startswith("sparknode/"):
                    continue
                source = Path(packed.extract(name, folder))
                out.write(source, name)
                unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(str(source), f"{source}c", name, doraise=True, invalidation_mode=unchecked)
                out.write(f"{source}c", f"{name}c")
        atomic_write(target, compiled.read_bytes())
    for old in [path for path in former if path != target][:-1]:
        old.unlink()
    return target
