"""Raw material: written without secrets, read again as it was, and parsed whatever it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet import ROOT
from sparkfleet.node.nodeprogram import program
from sparkfleet.preflight.bundle import read as read_bundle
from sparknode.base.process import Completed
from sparknode.base.shape import written
from sparknode.base.system import RealSystem, asking
from sparknode.errors import Refused
from sparknode.facts import collect
from sparknode.facts.collect import Raw
from sparknode.facts.facts import Facts
from sparknode.facts.probe import facts, probe
from tests.bundles import bundle


def test_a_bundle_says_the_same_as_the_host(tmp_path: Path) -> None:
    raw = bundle(
        unread={"/etc/cdi/odd.yaml": "Permission denied"}, answers={"firmware": Completed((), None, timeout=10.0)}
    )
    documents = collect.documents(raw)
    (tmp_path / "b.tar.gz").write_bytes(collect.pack(documents))
    host, again = read_bundle(tmp_path / "b.tar.gz")

    host_of = replace(facts(raw).host, boot_id="00000000-0000-0000-0000-000000000000")
    assert facts(again) == replace(facts(raw), host=host_of)
    assert probe(host, again)["fleet"]["serving"] is None
    answer = json.loads(documents["commands/gpu.json"])
    assert answer["argv"][0] == "nvidia-smi"
    assert {"rc", "stdout", "stderr", "seconds"} <= set(answer)
    assert documents["files/proc/meminfo"] == raw.files["/proc/meminfo"]
    collect.write(documents, tmp_path / "bundle")
    assert facts(read_bundle(tmp_path / "bundle")[1]) == facts(again)
    with pytest.raises(Refused, match="name a new folder"):
        collect.write(documents, tmp_path / "bundle")


@pytest.mark.parametrize("content", [b"", b"mine", collect.pack(collect.documents(bundle()))[:500]])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.tar.gz").write_bytes(content)
    with pytest.raises(Refused, match=r"no bundle is there .*; tasks/doctor.py makes one"):
        read_bundle(tmp_path / "b.tar.gz")


@pytest.mark.parametrize("inside", ["", "bundle/", "Downloads/report/bundle/"])
def test_a_bundle_may_come_as_a_zip(tmp_path: Path, inside: str) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name, text in collect.documents(bundle()).items():
            archive.writestr(inside + name, text)

    assert facts(read_bundle(tmp_path / "b.zip")[1]) == facts(read_again(bundle(), tmp_path))


def read_again(raw: Raw, folder: Path) -> Raw:
    (folder / "again.tar.gz").write_bytes(collect.pack(collect.documents(raw)))
    return read_bundle(folder / "again.tar.gz")[1]


def test_firmware_is_told_apart_in_a_bundle_too(tmp_path: Path) -> None:
    devices = [
        {"Name": "UEFI Device Firmware", "Guid": ["b488217b-3895-4fc0-b1bf-ab7005a2d45a"], "Version": "0x02009b0b"},
        {"Name": "UEFI Device Firmware", "Guid": ["dd1a238a-5f8e-46bd-9401-a88da99c5a96"], "Version": "0x00000001"},
        {"Name": "SSD", "Serial": "S6XYNS0W123456", "Version": "NXHB202Q"},
    ]
    again = read_again(bundle(answers={"firmware": json.dumps({"Devices": devices}, indent=2)}), tmp_path)

    assert facts(again).firmware == {"SoC firmware": "0x02009b0b", "USB-PD": "0x00000001", "SSD": "NXHB202Q"}
    assert "S6XYNS0W" not in again.commands["firmware"].stdout


def test_a_byte_order_mark_is_no_part_of_an_answer(tmp_path: Path) -> None:
    raw = bundle()
    marked = {name: f"\ufeff{text}" for name, text in collect.documents(raw).items()}
    collect.write(marked, tmp_path / "b")

    assert facts(read_bundle(tmp_path / "b")[1]) == facts(read_again(raw, tmp_path))


def test_a_bundle_without_its_cover_says_so(tmp_path: Path) -> None:
    documents = collect.documents(bundle(unread={"/etc/cdi/odd.yaml": "Permission denied"}))
    del documents["bundle.json"]
    collect.write(documents, tmp_path / "b")

    assert [row["what"] for row in probe(*read_bundle(tmp_path / "b"))["unreadable"]] == ["bundle.json"]


def test_a_folder_of_something_else_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Refused, match="no bundle is there; make one with `sparknode collect DIR`"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("spoiled", ["{", "[]", "null", '{"rc": "x", "stdout": 1, "stderr": []}', "\x00\xff"])
def test_a_spoiled_bundle_says_what_it_lacks(tmp_path: Path, spoiled: str) -> None:
    documents = collect.documents(bundle())
    del documents["commands/disk.json"]
    spoilt = {**documents, "commands/gpu.json": spoiled, "bundle.json": spoiled}
    (tmp_path / "b.tar.gz").write_bytes(collect.pack(spoilt))

    host, raw = read_bundle(tmp_path / "b.tar.gz")
    document = probe(host, raw)

    assert document["gpu"]["devices"] == []
    assert {"gpu", "disk"} <= {entry["what"] for entry in document["unreadable"]}


def test_an_answer_to_another_question_is_none(tmp_path: Path) -> None:
    documents = collect.documents(bundle())
    older = json.loads(documents["commands/units.json"])
    older["argv"][2] = "default.target"
    collect.write({**documents, "commands/units.json": json.dumps(older)}, tmp_path / "b")

    document = probe(*read_bundle(tmp_path / "b"))

    assert document["units"] == {}
    assert [entry["why"] for entry in document["unreadable"] if entry["what"] == "units"] == [
        "`systemctl show sparkfleet-serve.service` ended with -1: the bundle has no answer to it"
    ]


def test_programs_that_hang_cost_one_deadline() -> None:
    started = time.monotonic()
    found = asking(RealSystem(), {str(number): ("sleep", "30") for number in range(20)}, 0.5)()
    assert time.monotonic() - started < 5
    assert all(done.timed_out for done in found.values())


@pytest.mark.parametrize("zipped", [False, True], ids=["checkout", "zipapp"])
def test_collect_and_probe_run_from_the_command_line(tmp_path: Path, zipped: bool) -> None:
    (tmp_path / "sparknode.pyz").write_bytes(program())
    start = [str(tmp_path / "sparknode.pyz")] if zipped else ["-m", "sparknode"]

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, *start, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)

    collected = run("collect")
    assert collected.returncode == 0, collected.stderr
    (tmp_path / "b.tar.gz").write_bytes(collected.stdout)
    judged = run("probe")
    assert judged.returncode == 0, judged.stderr
    document, again = json.loads(judged.stdout), facts(read_bundle(tmp_path / "b.tar.gz")[1])
    assert document["host"]["hostname"] == again.host.hostname == os.uname().nodename
    assert again.memory.total_kib == document["memory"]["total_kib"] > 0
    assert run("collect", str(tmp_path / "folder")).returncode == 0
    assert facts(read_bundle(tmp_path / "folder")[1]).memory.total_kib == again.memory.total_kib


FIT = bundle()
SPOILT = st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("utf-8", "replace"))


@given(
    answers=st.dictionaries(
        st.sampled_from(sorted(FIT.commands)), st.tuples(st.none() | st.integers(0, 255), SPOILT, SPOILT), max_size=8
    ),
    files=st.dictionaries(st.sampled_from(sorted(FIT.files)), SPOILT, max_size=8),
)
def test_no_material_makes_anything_raise(
    answers: dict[str, tuple[int | None, str, str]], files: dict[str, str]
) -> None:
    commands = {
        name: replace(FIT.commands[name], rc=rc, stdout=out, stderr=err) for name, (rc, out, err) in answers.items()
    }
    found = facts(Raw({**FIT.files, **files}, {}, {**FIT.commands, **commands}))
    read = Facts.read(json.loads(json.dumps(written(found))))
    # An empty text is read as null.
    assert Facts.read(written(read)) == read
    assert (read.memory, read.disk, read.packages) == (found.memory, found.disk, found.packages)


@given(st.sampled_from(sorted(FIT.commands)), st.floats(0, 1))
def test_an_answer_that_was_cut_off_makes_nothing_raise(name: str, share: float) -> None:
    done = FIT.commands[name]
    cut = replace(done, stdout=done.stdout[: int(share * len(done.stdout))])
    found = facts(Raw(FIT.files, {}, {**FIT.commands, name: cut}))
    read = Facts.read(json.loads(json.dumps(written(found))))
    # An empty text is read as null.
    assert Facts.read(written(read)) == read
    assert (read.memory, read.disk, read.packages) == (found.memory, found.disk, found.packages)
