"""A registry on a seed: an image crosses the WAN once for any number of hosts, counted by the upstream's own log."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.ocilayout import pack_layer, write_image

pytestmark = pytest.mark.skipif(
    os.environ.get("CI") != "true" and not all(map(shutil.which, ("docker-registry", "skopeo"))),
    reason="needs docker-registry and skopeo",
)
HOSTS, NAME = 4, "acme/engine"
Start = Callable[[str, str], str]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Start]:
    """Starts a registry of this name, with more settings; its address. Its log is NAME.log."""
    with ExitStack() as stack:

        def start(name: str, more: str = "") -> str:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{free.getsockname()[1]}"
            settings = (
                f"storage: {{filesystem: {{rootdirectory: {tmp_path / name}}}}}\nhttp: {{addr: {address}}}\n{more}"
            )
            (tmp_path / f"{name}.yml").write_text(f"version: 0.1\n{settings}")
            log = stack.enter_context((tmp_path / f"{name}.log").open("w"))
            command = ["docker-registry", "serve", str(tmp_path / f"{name}.yml")]
            process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
            stack.callback(process.kill)
            until = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", int(address.split(":")[1])), 1).close()
                    return address
                except OSError:
                    assert time.monotonic() < until, f"the registry {name} did not start"
                    time.sleep(0.05)

        yield start


def copy(source: str, target: str) -> None:
    options = ["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false"]
    subprocess.run(["skopeo", *options, "--dest-tls-verify=false", source, target], check=True, timeout=60)


@pytest.fixture
def upstream(tmp_path: Path, registry: Start) -> tuple[str, str, int]:
    """A registry with one image; its address, the image's digest and the size of its layer."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/weights").write_bytes(os.urandom(3_000_000))
    layer = pack_layer(tmp_path / "layout", tmp_path / "files", lambda _: True)
    digest = write_image(tmp_path / "layout", "one", [layer], {})
    address = registry("upstream", "")
    copy(f"oci:{tmp_path / 'layout'}:one", f"docker://{address}/{NAME}:one")
    return address, digest, layer.size


def sent(tmp_path: Path) -> int:
    """Bytes of blobs that the upstream sent."""
    rows = re.findall(r'"GET /v2/\S+/blobs/\S+ HTTP/1.1" 200 (\d+)', (tmp_path / "upstream.log").read_text())
    return sum(map(int, rows))


def take(tmp_path: Path, address: str, digest: str) -> None:
    """What each host does: the image by its digest, with every byte of it."""
    for number in range(HOSTS):
        copy(f"docker://{address}/{NAME}@{digest}", f"dir:{tmp_path / f'host-{number}'}")


def test_a_registry_that_was_filled_once_costs_the_wan_nothing_more(
    tmp_path: Path, registry: Start, upstream: tuple[str, str, int]
) -> None:
    source, digest, size = upstream
    seed = registry("seed", "")

    copy(f"docker://{source}/{NAME}@{digest}", f"docker://{seed}/{NAME}:one")
    take(tmp_path, seed, digest)

    assert size <= sent(tmp_path) <= 1.05 * size


def test_a_pull_through_registry_asks_upstream_for_the_first_host_alone(
    tmp_path: Path, registry: Start, upstream: tuple[str, str, int]
) -> None:
    source, digest, size = upstream
    seed = registry("seed", f"proxy: {{remoteurl: 'http://{source}'}}\n")

    take(tmp_path, seed, digest)

    # docker-registry 2.8 fetches twice what it has not: for whoever asks, and for itself.
    assert size <= sent(tmp_path) <= 2.05 * size
    before = sent(tmp_path)
    take(tmp_path, seed, digest)
    assert sent(tmp_path) == before
