"""`python -m sparkfleet check`: a probe document is judged without any host."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.cli.main import main
from sparknode.facts import collect
from tests.bundles import bundle, document
from tests.unit.sparkfleet.preflight.defects import gpu

CHOSEN = ["--profile", "agentic", "--image-tag", "2026-06-11-pr41703"]
DISCRETE = Path(__file__).parents[3] / "fixtures" / "discrete"
# A machine with one H100 (tests/fixtures/discrete): what it said to the same questions.
H100 = bundle(
    {"/sys/bus/pci/devices/000f:01:00.0/uevent": "PCI_ID=10DE:2330\n", "/sys/module/nvidia/version": "580.159.04\n"},
    {
        "gpu": gpu("NVIDIA H100 80GB HBM3", "9.0", "580.159.04", "41, 121.98, 405, 0, 81559, 81079"),
        "gpu-details": (DISCRETE / "nvidia-smi-q.txt").read_text(),
        "uname": "h100 6.8.0-60-generic x86_64\n",
    },
)


def checked(folder: Path, node: Any, *options: str) -> int:
    (folder / "probe.json").write_text(node if isinstance(node, str) else json.dumps(node))
    return main(["check", str(folder / "probe.json"), *CHOSEN, *options])


def test_a_fit_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path, document()) == 0
    said = capsys.readouterr().out
    assert said.endswith("fit\n")
    assert "the largest gpu_memory_utilization that fits now is 0.88" in said


def test_the_findings_say_that_a_machine_is_no_gb10(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = document(H100)
    assert node["unreadable"] == []
    assert node["gpu"]["devices"][0]["memory_free_mib"] == 81079
    assert (node["gpu"]["cuda_version"], node["gpu"]["gsp_version"]) == ("13.0", "580.159.04")
    assert checked(tmp_path, node) == 1
    said = capsys.readouterr().out
    assert "gpu.kind: the GPU is NVIDIA H100 80GB HBM3 (10de:2330), not of the kind gb10" in said
    assert "host.architecture: the machine is x86_64" in said
    assert "a machine that the catalogue does not know (NVIDIA H100 80GB HBM3)" in said
    assert "unknown:" not in said


def test_json_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path, document(H100), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["fit"]) == (None, False)
    kind = next(one for one in found["findings"] if one["id"] == "gpu.kind")
    assert set(kind) == {"id", "severity", "found", "expected", "why", "source", "remedy", "maintenance"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', "Welcome to DGX OS"])
def test_what_is_no_probe_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert checked(tmp_path, text) == 1
    assert "fail: probe: the host returned no probe" in capsys.readouterr().out


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(document())))
    assert main(["check", "-", *CHOSEN]) == 0
    assert capsys.readouterr().out.endswith("fit\n")


@pytest.mark.parametrize("name", ["b.tar.gz", "b.tgz", "b.zip", "download"])
def test_a_packed_bundle_of_any_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = collect.documents(bundle())
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path, text in documents.items():
                archive.writestr(f"bundle/{path}", text)
    else:
        (tmp_path / name).write_bytes(collect.pack(documents))
    assert main(["check", str(tmp_path / name), *CHOSEN]) == 0
    assert capsys.readouterr().out.endswith("fit\n")


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "absent.json"), *CHOSEN]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert checked(tmp_path, document(), "--hardware", "gb20") == 2
    assert "gb20" in capsys.readouterr().err


def test_the_handbook_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--preflight"]) == 0
    assert capsys.readouterr().out.startswith("# The preflight's findings")
