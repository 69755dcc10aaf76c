"""Reading what a model's files hold before anything of them is downloaded, by ranges of a Hub's files.

The beginnings of the weights and a few small documents are read, some megabytes of a repository of many gigabytes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sparkfleet.errors import LockError
from sparkfleet.release.lockfile import Lock, LockedFile
from sparkfleet.release.weights import (
    CONFIG,
    GENERATION,
    INDEX,
    MAX_HEADER,
    PREFIX,
    TENSORS,
    Contents,
    Expected,
    Unreadable,
    header_length,
    problems,
)

# A file's first bytes up to here.
Begin = Callable[[LockedFile, int], bytes]
# Most headers of a shard are whole in it.
FIRST_BYTES = 256 << 10
SILENCE_S, ANSWER_S = 30.0, 180.0
TRIES, RETRIES = 3, 2
AT_ONCE = 8


def read(files: list[LockedFile], begin: Begin) -> Contents:
    """Return what the rules ask of these files; one that cannot be is left to them. Raises whatever `begin` raises."""
    top = {file.path: file for file in files if "/" not in file.path}
    weights = [file for path, file in top.items() if path.endswith(TENSORS)]
    named = [file for path, file in top.items() if path in (CONFIG, GENERATION) or path.endswith(INDEX)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        headers = dict(pool.map(lambda file: (file.path, (file.size, _header(file, begin))), weights))
        documents = dict(pool.map(lambda file: (file.path, _whole(file, begin)), named))
    return Contents(frozenset(file.path for file in files), headers, documents)


def _header(file: LockedFile, begin: Begin) -> bytes:
    found = begin(file, min(FIRST_BYTES, file.size))
    try:
        end = PREFIX + header_length(file.path, file.size, found)
    except Unreadable:
        # The rules say so.
        return found
    return found if end <= len(found) else begin(file, end)


def _whole(file: LockedFile, begin: Begin) -> bytes:
    """Return a document, which must be the bytes that the lock names."""
    content = begin(file, min(file.size, MAX_HEADER))
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size)
    digest.update(content)
    if digest.hexdigest() != (file.sha256 or file.git_blob_sha1):
        raise OSError(f"{file.path} came with other bytes than the Hub lists: {digest.name} {digest.hexdigest()}")
    return content


def of_hub(repo: str, commit: str, endpoint: str | None) -> Begin:
    """Return a reader of ranges; HF_TOKEN from the environment opens private and gated repositories."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import hf_raise_for_status, http_stream_backoff

    def begin(file: LockedFile, size: int) -> bytes:
        url = hf_hub_url(repo, file.path, revision=commit, endpoint=endpoint)
        headers = {**build_hf_headers(), "Range": f"bytes=0-{size - 1}", "Accept-Encoding": "identity"}
        short = broken = ""
        for _ in range(TRIES if size else 0):
            content, deadline = bytearray(), time.monotonic() + ANSWER_S
            # What is refused or not reached the library tries again; what breaks off is ours.
            with http_stream_backoff("GET", url, headers=headers, timeout=SILENCE_S, max_retries=RETRIES) as answer:
                hf_raise_for_status(answer)
                try:
                    # A proxy that knows no ranges begins with the whole file.
                    for chunk in answer.iter_bytes():
                        content += chunk
                        if len(content) >= size or time.monotonic() > deadline:
                            break
                except Exception as error:  # those of httpx, or of httpx2 under newer versions of the library
                    broken = f" ({type(error).__name__})"
            if len(content) >= size:
                return bytes(content[:size])
            short = f"{len(content)} of {size} bytes came{broken}"
        if size:
            raise OSError(f"{file.path}: {short}, and this was try {TRIES}")
        return b""

    return begin


def require(lock: Lock, repo: str, expected: Expected, endpoint: str | None) -> None:
    """Raise LockError unless a repository's files hold what the catalogue says."""
    locked, target = lock.repos[repo], None
    try:
        found = read(locked.files, of_hub(repo, locked.commit, endpoint))
        if expected.target:
            config = [file for file in lock.repos[expected.target[0]].files if file.path == CONFIG]
            target = read(config, of_hub(*expected.target, endpoint))
    except Exception as error:  # as above
        said = str(error).strip().split("\n")[0][:200]
        raise LockError(
            f"the Hub refused to serve the files of {repo} at {locked.commit[:12]}: {type(error).__name__}: {said}",
            "headers and configuration that this machine may read",
            "check the network and, for gated repositories, HF_TOKEN in the environment, and run `python -m sparkfleet "
            "lock` again",
        ) from None
    wrong = problems(found, expected, target)
    if wrong:
        raise LockError(
            f"{repo} at {locked.commit[:12]} differs from the catalogue: {'; '.join(wrong)}",
            "the tensors and the configuration that stand under `artefact` and `drafter` in catalog/models.yaml",
            "pin a revision that has them, or correct the model's row if the row is wrong",
        )
