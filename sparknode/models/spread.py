"""A model between hosts: given and taken with aria2 or rsync for as long as the controller watches, and no longer."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sparknode import SCHEMAS
from sparknode.base.files import atomic_write
from sparknode.base.locks import hold_file
from sparknode.base.process import environment
from sparknode.base.progress import Meter, look
from sparknode.base.shape import Node, parse, written
from sparknode.base.system import Host, Tell
from sparknode.errors import Failed
from sparknode.host import addresses, node_status
from sparknode.models import manifest as manifests
from sparknode.models import torrent
from sparknode.models.fetch import require_room, size_of
from sparknode.models.manifest import Manifest
from sparknode.models.requests import Progress, SpreadOrder, SpreadReport
from sparknode.models.stage import complete

TICK_S = 0.2
# Whoever spreads looks at each host every few seconds; silence means that it is gone.
SILENCE_S = 90.0
END_S = 5.0
_TOOLS = {"swarm": "aria2c", "rsync": "rsync"}


def report(host: Host, wait_s: float = 0) -> dict[str, Any]:
    """A SpreadReport as JSON. Being asked keeps a spread alive.

    With a time to wait it answers after that, or as soon as this host has all of what it takes.
    """
    until = time.monotonic() + wait_s
    while True:
        with suppress(FileNotFoundError):
            os.utime(host.paths.spread / "asked")
        progress = _progress(host)
        if time.monotonic() >= until or (progress and progress.done == progress.total):
            break
        time.sleep(TICK_S)
    tools = tuple(engine for engine, program in _TOOLS.items() if _has(program))
    report = SpreadReport(progress, node_status.models(host.paths), addresses.own(host.system), tools)
    found: dict[str, Any] = written(report)
    return found


def _progress(host: Host) -> Progress | None:
    found = look(host)
    return Node(found, "progress").build(Progress) if found else None


def _has(program: str) -> bool:
    return shutil.which(program, path=environment()["PATH"]) is not None


def metainfo(host: Host, request: str) -> str:
    """The torrent of a model that stands here, as base64."""
    manifest = manifests.from_node(parse(request, "manifest"))
    return base64.b64encode(torrent.metainfo(manifest, source(host, manifest))).decode()


def source(host: Host, manifest: Manifest) -> Path:
    """The proven model, or what just came and is not proven yet: who takes it proves it."""
    paths = host.paths
    here = complete(host, manifest)
    return (paths.model_dir if here else paths.incoming_dir)(manifest.repo, manifest.commit)


def stop(host: Host) -> None:
    """Have the spread on this host end."""
    (host.paths.spread / "stop").touch()


def share(host: Host, request: str, tell: Tell) -> int:
    """Give or take one model until told to stop; 0 when this host has all of it."""
    node = parse(request, "spread request")
    node.schema(SCHEMAS["spread"])
    manifest = manifests.from_node(node.node("manifest"))
    order = node.node("order").build(SpreadOrder)
    program = _TOOLS["swarm" if order.torrent else "rsync"]
    if not _has(program):
        raise Failed(f"{program} is not installed here; apt install {program.removesuffix('c')}")
    folder = host.paths.spread
    folder.mkdir(parents=True, exist_ok=True)
    verb = {"give": "giving", "take": "taking"}[order.role]
    with hold_file(host.paths.store_lock, f"{verb} {manifest.name}"), ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / "stop").unlink(missing_ok=True)
        (folder / "asked").touch()
        if order.torrent is None:
            argv = _rsync(host, manifest, order)
        else:
            others = [peer for peer in order.peers if peer != order.address]
            argv = _swarm(host, manifest, order, stack.enter_context(torrent.tracker(others, order.port)))
        return _run(host, manifest, order, argv, tell)


def _swarm(host: Host, manifest: Manifest, order: SpreadOrder, announce: str) -> list[str]:
    giving = order.role == "give"
    place = source(host, manifest) if giving else host.paths.incoming_dir(manifest.repo, manifest.commit)
    if not giving:
        _make_room(manifest, place, order)
        # The pieces are hashed anyhow, and a file that a full disk cut short would stop every further try.
        control(place).unlink(missing_ok=True)
    meta = host.paths.spread / "torrent"
    atomic_write(meta, base64.b64decode(order.torrent or ""))
    stall = 0 if giving else order.stall_s
    return [
        # It fills a pipe by the page, and its lines are how we know that all came.
        *(
            "stdbuf",
            "-oL",
            "aria2c",
            "--no-conf",
            "--enable-color=false",
            "--console-log-level=notice",
            "--summary-interval=0",
        ),
        *(f"--dir={place.parent}", f"--torrent-file={meta}", f"--listen-port={order.port}"),
        *(f"--bt-external-ip={order.address}", f"--bt-tracker={announce}", f"--bt-tracker-interval={torrent.AGAIN_S}"),
        *("--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false"),
        *("--file-allocation=none", "--auto-save-interval=5", "--seed-ratio=0", "--bt-remove-unselected-file=false"),
        *("--allow-overwrite=true", f"--bt-seed-unverified={'true' if giving else 'false'}"),
        *(f"--check-integrity={'false' if giving else 'true'}", "--bt-request-peer-speed-limit=1000M"),
        *(
            f"--max-overall-upload-limit={order.limit_bytes_s:.0f}",
            f"--bt-stop-timeout={stall:.0f}",
        ),
        *(f"--stop={order.deadline_s:.0f}", f"--stop-with-process={os.getpid()}", "--disable-ipv6=true"),
        *(f"--interface={order.address}", "--bt-max-peers=60", "--disk-cache=64M"),
    ]


def _rsync(host: Host, manifest: Manifest, order: SpreadOrder) -> list[str]:
    if order.role == "give":
        config = host.paths.spread / "rsyncd.conf"
        allowed = " ".join(order.peers)
        module = f"[model]\npath = {source(host, manifest)}\nread only = yes\nlist = no\nhosts allow = {allowed}\n"
        atomic_write(config, f"use chroot = no\nuid = {os.geteuid()}\ngid = {os.getegid()}\n{module}".encode())
        listen = [f"--address={order.address}", f"--port={order.port}"]
        return ["rsync", "--daemon", "--no-detach", f"--config={config}", *listen]
    place = host.paths.incoming_dir(manifest.repo, manifest.commit)
    if control(place).exists():
        # What a swarm left has holes, and looks whole to rsync.
        shutil.rmtree(place, ignore_errors=True)
        control(place).unlink()
    _make_room(manifest, place, order)
    _await(order.peers[0], order)
    limit = [f"--bwlimit={order.limit_bytes_s / 1024:.0f}"] if order.limit_bytes_s else []
    # Appending takes up a broken run without reading again what is here; the hashes are looked at afterwards.
    return [
        *("rsync", "--recursive", "--append", "--inplace", f"--timeout={order.stall_s:.0f}", *limit),
        *(f"--address={order.address}", f"rsync://{order.peers[0]}:{order.port}/model/", f"{place}/"),
    ]


def _await(peer: str, order: SpreadOrder) -> None:
    """The other side starts at the same time."""
    until = time.monotonic() + order.stall_s
    while True:
        try:
            socket.create_connection((peer, order.port), timeout=order.stall_s).close()
            return
        except OSError as problem:
            if time.monotonic() > until:
                raise Failed(
                    f"{peer}:{order.port} does not give: {problem}; is the way between the hosts open?"
                ) from None
        time.sleep(TICK_S)


def control(place: Path) -> Path:
    """Where aria2 remembers which pieces it has."""
    return place.with_name(f"{place.name}.aria2")


def _make_room(manifest: Manifest, place: Path, order: SpreadOrder) -> None:
    place.mkdir(parents=True, exist_ok=True)
    missing = [file for file in manifest.files if size_of(place / file.path) != file.size]
    require_room(place, missing, place / ".none", int(order.reserve_bytes))
    for file in manifest.files:
        # A torrent does not speak of files without content.
        if not file.size:
            (place / file.path).parent.mkdir(parents=True, exist_ok=True)
            (place / file.path).touch()


def _run(host: Host, manifest: Manifest, order: SpreadOrder, argv: list[str], tell: Tell) -> int:
    taking = order.role == "take"
    place = host.paths.incoming_dir(manifest.repo, manifest.commit)
    last: list[str] = []
    came = threading.Event()
    ends = time.monotonic() + order.deadline_s
    asked, heard = 0.0, time.monotonic()
    verb = "taking" if taking else "giving"
    with (
        _program(argv, last, came) as process,
        Meter(host, f"{verb} {manifest.name}", manifest.total_bytes, tell) as meter,
    ):
        ended = "it ended by itself"
        while process.poll() is None:
            if taking and not came.is_set():
                # All is here only when the program says so.
                meter.add(min(_allocated(place), meter.total - 1) - meter.done)
            elif meter.done < meter.total:
                meter.finish()
            if (host.paths.spread / "stop").exists():
                ended = "it was stopped"
                break
            # That it changes counts and not how old it is: a clock that is set meanwhile is no silence.
            if asked != (asked := (host.paths.spread / "asked").stat().st_mtime):
                heard = time.monotonic()
            if time.monotonic() - heard > SILENCE_S:
                ended = f"no request for {SILENCE_S:.0f} s"
                break
            if time.monotonic() > ends:
                ended = f"its deadline of {order.deadline_s:.0f} s passed"
                break
            time.sleep(TICK_S)
    whole = came.is_set() or (order.torrent is None and taking and process.returncode == 0)
    if whole:
        control(place).unlink(missing_ok=True)
    if whole or not taking:
        return 0 if whole or ended == "it was stopped" else 1
    # A full disk first, since that is what a person can mend; the programs' last words are of its consequences.
    said = [line for word in ("No space left", "ERROR", "rsync") for line in last if word in line] or last[-1:]
    raise Failed(f"{manifest.name} arrived incomplete: {ended}{': ' + said[0][:300] if said else ''}")


def _allocated(folder: Path) -> int:
    """Bytes that were written: pieces come in any order, so the files' lengths say nothing."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(base) / name).stat().st_blocks * 512
    return total


@contextmanager
def _program(argv: list[str], last: list[str], came: threading.Event) -> Iterator[subprocess.Popen[str]]:
    """Run a program; the last lines it said, and whether it said that all came."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=environment(),
        start_new_session=True,
    )

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if "SEED(" in line:
                came.set()
            if line.strip():
                last[:] = [*last[-39:], line.strip()]

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
        reader.join(END_S)
