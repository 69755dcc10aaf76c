"""Download one repository at one commit with huggingface_hub and prove every file against the lock.

Run as `python -m sparkfleet.fetch REPO COMMIT FOLDER` with the locked repository as JSON on standard input. Files that
are already right are kept, file by file, so a broken run is taken up where it stopped.
"""

from __future__ import annotations

import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sparkfleet.lock import LockedFile, LockedRepo

CHUNK = 1024 * 1024


def is_right(path: Path, expected: LockedFile) -> bool:
    """Say whether the file has the locked size and hash."""
    if not path.is_file() or path.stat().st_size != expected.size:
        return False
    digest = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % expected.size, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            if expected.git_blob_sha1 is not None:
                blob.update(chunk)
    if expected.sha256 is not None:
        return digest.hexdigest() == expected.sha256
    return expected.git_blob_sha1 is not None and blob.hexdigest() == expected.git_blob_sha1


def fetch(repo: str, locked: LockedRepo, folder: Path) -> list[str]:
    """Bring the folder to the locked state; return what is still wrong, a line a file."""
    from huggingface_hub import hf_hub_download

    folder.mkdir(parents=True, exist_ok=True)
    missing = _wrong(folder, locked.files)
    if missing:
        size = sum(file.size for file in missing)
        print(f"[fetch] {repo}: {len(missing)} files, {size / 1e6:.1f} MB to fetch", flush=True)
    for file in missing:
        started = time.monotonic()
        # The client trusts size and time of a file that is there (huggingface_hub#3643), so a wrong one goes first.
        (folder / file.path).unlink(missing_ok=True)
        hf_hub_download(repo, file.path, revision=locked.commit, local_dir=folder)
        seconds = max(time.monotonic() - started, 1e-6)
        megabytes = file.size / 1e6
        rate = megabytes / seconds
        print(f"[fetch] {repo}: {file.path} {megabytes:.1f} MB in {seconds:.1f} s ({rate:.0f} MB/s)", flush=True)
    return [f"{file.path}: not the {file.size} bytes with the locked hash" for file in _wrong(folder, missing)]


def _wrong(folder: Path, files: list[LockedFile]) -> list[LockedFile]:
    with ThreadPoolExecutor() as pool:
        right = pool.map(lambda file: is_right(folder / file.path, file), files)
        return [file for file, good in zip(files, right, strict=True) if not good]


def main() -> int:
    repo, commit, target = sys.argv[1:4]
    locked = LockedRepo.model_validate_json(sys.stdin.read())
    if locked.commit != commit:
        print(f"[fetch] {repo}: asked for {commit}, the lock has {locked.commit}", file=sys.stderr)
        return 2
    folder = Path(target)
    try:
        wrong = fetch(repo, locked, folder)
    except Exception as error:  # the client raises a wide and changing set of errors; all mean «not fetched»
        print(f"[fetch] {repo}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for line in wrong:
        print(f"[fetch] {repo}: {line}", file=sys.stderr)
    if wrong:
        return 1
    _drop_client_state(folder)
    folder.with_name(folder.name + ".verified").write_text(locked.manifest_sha256)
    return 0


def _drop_client_state(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder / ".cache", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
