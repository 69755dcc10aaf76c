"""The readers of foreign text: the shapes that were seen in the field, and garbage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknode.base import parse
from sparknode.base.process import Completed
from sparknode.facts import smi, updates
from sparknode.facts.facts import Device, Ota
from sparknode.host import docker, node_status

FIXTURES = Path(__file__).parents[3] / "fixtures"


def fixture(name: str) -> str:
    return (FIXTURES / name).read_text()


@pytest.mark.parametrize(
    ("name", "platform", "ota"),
    [
        ("fe", "DGX Server for KVM", "7.5.0"),
        ("asus", "GX10", "7.6.0"),
        ("dell", "Dell Pro Max with GB10 FCM1253", None),
    ],
)
def test_dgx_release_takes_the_last_ota_and_no_serial_number(name: str, platform: str, ota: str | None) -> None:
    found = parse.dgx_release(fixture(f"gb10/dgx-release.{name}.txt"))

    assert found == {"name": "DGX Spark", "platform": platform, "software_version": "7.2.3", "ota_version": ota}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DGX_PLATFORM=HP ZGX Nano G1n AI Station\n", "HP ZGX Nano G1n AI Station"),
        ("DGX_PLATFORM='GX10'\r\n", "GX10"),
        ('DGX_PLATFORM="one"\nDGX_PLATFORM="two"\n', "two"),
        ('DGX_PLATFORM=" "\n', None),
    ],
)
def test_dgx_release_values_may_be_bare_repeated_or_empty(text: str, expected: str | None) -> None:
    found = parse.dgx_release(text)

    assert found is not None
    assert found["platform"] == expected


def test_a_host_that_is_no_dgx_has_no_dgx_release() -> None:
    assert parse.dgx_release("") is None
    assert parse.dgx_release("ID=debian\n") is None


def test_meminfo() -> None:
    found = parse.meminfo(fixture("gb10/meminfo.serving.txt"))

    assert (found["MemTotal"], found["MemAvailable"], found["HugePages_Total"]) == (127535224, 23135528, 0)


@pytest.mark.parametrize(
    ("stdout", "rc", "names", "error"),
    [
        ("NVIDIA GB10, 12.1, 580.159.03\n", 0, ["NVIDIA GB10"], None),
        ("NVIDIA GB10, [N/A], [N/A]\n", 0, ["NVIDIA GB10"], None),
        ("NVIDIA GB10, 12.1, 580.95.05\nNVIDIA GB10, 12.1, 580.95.05\n", 0, ["NVIDIA GB10"] * 2, None),
        ("No devices were found\n", 6, [], "No devices were found"),
        ("No devices were found\n", 0, [], "No devices were found"),
        ("Failed to initialize NVML: Unknown Error\n", 255, [], "Failed to initialize NVML: Unknown Error"),
        (
            'Field "compute_cap" is not a valid field to query.\n',
            2,
            [],
            'Field "compute_cap" is not a valid field to query.',
        ),
        ("", 0, [], "nvidia-smi ended with 0 and named no GPU"),
        ("NVIDIA GB10, 12.1, 580.95.05\n", 9, ["NVIDIA GB10"], "nvidia-smi ended with 9"),
    ],
)
def test_gpus(stdout: str, rc: int, names: list[str], error: str | None) -> None:
    devices, why = smi.gpus(stdout, rc)

    assert [device.name for device in devices] == names
    assert why == error


def test_what_a_gb10_does_not_know_is_none() -> None:
    devices, _ = smi.gpus("NVIDIA GB10, [N/A], 580.95.05\n", 0)

    assert devices == (Device("NVIDIA GB10", None, "580.95.05", None),)


def test_gpu_processes_are_named_for_a_person() -> None:
    text = "415592, VLLM::EngineCore, 69564 MiB\n77, odd, name, 5 MiB\nNo running processes found\n"

    assert parse.gpu_processes(text) == [
        {"pid": 415592, "name": "VLLM::EngineCore", "memory": "69564 MiB"},
        {"pid": 77, "name": "odd, name", "memory": "5 MiB"},
    ]


def test_cdi_list_without_the_devices_that_are_made_of_a_uuid() -> None:
    assert parse.cdi_devices(fixture("gb10/nvidia-ctk-cdi-list.txt").splitlines()) == (
        "nvidia.com/gpu=0",
        "nvidia.com/gpu=all",
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all"}]}',
        '---\ncdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n- name: "0"\n  containerEdits: {}\n- name: all\n',
        'cdiVersion: 0.5.0\ndevices:\n  - containerEdits: {}\n    name: "0"\n  - name: all\nkind: nvidia.com/gpu\n',
    ],
    ids=["json", "yaml", "yaml with keys in another order"],
)
def test_cdi_specifications(text: str) -> None:
    assert parse.cdi_spec(text) == ("nvidia.com/gpu=0", "nvidia.com/gpu=all")


def test_toolkit_version() -> None:
    assert parse.toolkit_version("NVIDIA Container Toolkit CLI version 1.20.1\ncommit: dffc40b4\n") == "1.20.1"
    assert parse.toolkit_version("nonsense") is None


def test_docker_info_with_devices() -> None:
    found = parse.docker_info(
        json.dumps(
            {
                "ServerVersion": "29.1.3",
                "DockerRootDir": "/var/lib/docker",
                "Driver": "overlay2",
                "CDISpecDirs": ["/etc/cdi"],
                "Runtimes": {"runc": {}, "nvidia": {}},
                "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}, {"ID": "nvidia.com/gpu=GPU-00"}],
            }
        )
    )

    assert found == {
        "server_version": "29.1.3",
        "root_dir": "/var/lib/docker",
        "engine": "docker",
        "storage_driver": "overlay2",
        "image_store": "graphdriver",
        "containerd_address": None,
        "runtimes": ("nvidia", "runc"),
        "default_runtime": None,
        "cdi_dirs": ("/etc/cdi",),
        "cdi_devices": ("nvidia.com/gpu=all",),
        "error": None,
    }


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ServerVersion": null, "Runtimes": null}'])
def test_docker_info_that_names_no_version(text: str) -> None:
    assert parse.docker_info(text)["error"] == "Docker names no version of itself"


def test_by_which_way_containers_got_the_gpu() -> None:
    settings = {
        "/cdi": {"Runtime": "runc", "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]},
        "/flag": {"Runtime": "runc", "DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]},
        "/runtime": {"Runtime": "nvidia", "DeviceRequests": None},
        "/none": {"Runtime": "runc", "DeviceRequests": []},
    }
    text = json.dumps([{"Name": name, "HostConfig": one} for name, one in settings.items()])

    found = {row["name"]: row["gpu"] for row in parse.containers(text)}

    assert found == {"cdi": "cdi", "flag": "flag", "runtime": "runtime", "none": None}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (["NVIDIA_VISIBLE_DEVICES=all"], "hook"),
        (["NVIDIA_VISIBLE_DEVICES=0"], "hook"),
        (["NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=all"], "cdi"),
        (["NVIDIA_VISIBLE_DEVICES=void"], None),
        (["NVIDIA_VISIBLE_DEVICES="], None),
        ([], None),
    ],
)
def test_what_the_runtime_of_nvidia_did(environment: list[str], expected: str | None) -> None:
    text = json.dumps([{"Name": "/x", "HostConfig": {"Runtime": "nvidia"}, "Env": environment}])

    assert parse.containers(text)[0]["gpu"] == expected


def test_listening_ports_once_each_with_their_holder() -> None:
    text = (
        'LISTEN 0 2048 0.0.0.0:8000 0.0.0.0:* users:(("vllm",pid=123,fd=12),("vllm",pid=124,fd=12))\n'
        "LISTEN 0 128 [::]:22 [::]:*\n"
        'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=7,fd=3))\n'
        "LISTEN 0 4096 127.0.0.53%lo:53 0.0.0.0:*\n"
        "garbage\n"
    )

    assert parse.listening(text) == [
        {"port": 22, "process": "sshd", "pid": 7},
        {"port": 53, "process": None, "pid": None},
        {"port": 8000, "process": "vllm", "pid": 123},
    ]


def test_metrics_of_a_real_engine() -> None:
    samples = parse.metrics(fixture("engine/metrics-0.22.1-offline.txt"))

    accepted = [sample for sample in samples if sample[0] == "vllm:spec_decode_num_accepted_tokens_total"]
    assert accepted == [(accepted[0][0], {"engine": "0", "model_name": "gemma4-aeon-uncensored"}, 600.0)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a 1", [("a", {}, 1.0)]),
        ('a{b="c",d="e"} 2.5e3 1700000000', [("a", {"b": "c", "d": "e"}, 2500.0)]),
        ('a{b="quo\\"te"} 1', [("a", {"b": 'quo"te'}, 1.0)]),
        ("a NaN", []),
        ("a +Inf", []),
        ("# TYPE a counter", []),
        ("<html>", []),
        ("a one", []),
    ],
)
def test_metric_lines(line: str, expected: list[Any]) -> None:
    assert parse.metrics(line) == expected


READERS: list[Callable[[str], object]] = [
    parse.assignments,
    parse.os_release,
    parse.dgx_release,
    parse.meminfo,
    parse.gpu_processes,
    parse.cdi_spec,
    parse.toolkit_version,
    parse.docker_info,
    parse.containers,
    parse.listening,
    parse.properties,
    parse.metrics,
    parse.packages,
    parse.processes,
    updates.firmware,
    updates.firmware_guids,
    updates.ota,
    smi.details,
    smi.library,
    lambda text: smi.gpus(text, 0),
    lambda text: smi.gpus(text, 255),
    lambda text: parse.cdi_devices(text.splitlines()),
]


@given(
    st.text()
    | st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ).map(json.dumps)
)
def test_garbage_gives_less_but_never_an_exception(text: str) -> None:
    for reader in READERS:
        assert isinstance(reader(text), type(reader("")) | NoneType)


KEYS = [
    "HostConfig",
    "DeviceRequests",
    "RepoTags",
    "Runtimes",
    "DiscoveredDevices",
    "ServerVersion",
    "devices",
    "kind",
    "name",
    "ID",
]
ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
)


@given(ODD)
def test_documents_of_the_wrong_shape_never_raise(document: object) -> None:
    done = Completed((), 0, json.dumps(document))
    assert isinstance(parse.docker_info(done.stdout), dict)
    assert isinstance(parse.cdi_spec(done.stdout), tuple)
    assert isinstance(parse.containers(done.stdout), list)
    found = docker.read_lookup(done)
    assert bool(found.found) != bool(found.error)
    assert all(isinstance(one, str) for pair in node_status.images(done).items() for one in pair)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torn-score: 2.6\n", Ota(None, 2.6, None)),
        ("detected_ota OTA2607\ntorn-score: 3\n", Ota("OTA2607", 3.0, None)),
        ('{"name": "OTA2.2", "torn": 3, "total_checks": 153}', Ota("OTA2.2", 3.0, None)),
        ('{"torn": "0.6"}', Ota(None, 0.6, None)),
        (
            '{"detected_ota": "B", "torn": 1.5, "scores": [{"ota": "A", "torn": 9, "failed": ["x"]}, '
            '{"ota": "B", "torn": 1.5, "failed": ["kernel"]}]}',
            Ota("B", 1.5, ("kernel",)),
        ),
        ('note {\n{"name": "OTA2607", "torn": 0}\ndone', Ota("OTA2607", 0.0, None)),
        ('{"error": "must run as root"}', None),
        ('{"torn": true}', None),
        ("153 packages checked\n", None),
        ("", None),
    ],
)
def test_the_update_s_own_check(text: str, expected: object) -> None:
    assert updates.ota(text) == expected


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([{"Name": "UEFI Device Firmware", "Version": "1"}], {"UEFI Device Firmware": "1"}),
        (
            [{"Name": "UEFI Device Firmware", "Version": "1"}, {"Name": "UEFI Device Firmware", "Version": "2"}],
            {"UEFI Device Firmware": "1", "UEFI Device Firmware #2": "2"},
        ),
        (
            [
                {
                    "Name": "UEFI Device Firmware",
                    "Version": "1",
                    "Releases": [{"AppstreamId": "com.acme.x.socfw.firmware"}],
                },
                {
                    "Name": "UEFI Device Firmware",
                    "Version": "2",
                    "Releases": [{"AppstreamId": "com.acme.x.usbpd.firmware"}],
                },
                {"Name": "Thing", "Version": "3", "Releases": [{"AppstreamId": "com.acme.x.ec.firmware"}]},
            ],
            {"SoC firmware": "1", "USB-PD": "2", "Embedded Controller": "3"},
        ),
        ([{"Name": "Thing"}, {"Version": "1"}, 7], {}),
    ],
)
def test_firmware_by_device(devices: list[Any], expected: dict[str, str]) -> None:
    assert updates.firmware(json.dumps({"Devices": devices})) == expected


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("ii", "installed"),
        ("hi", "installed"),
        ("it", "installed"),
        ("iU", "unpacked"),
        ("iF", "half-configured"),
        ("iH", "half-installed"),
        ("iFR", "half-installed"),
        ("iW", "triggers awaited"),
        ("rc", None),
        ("un", None),
    ],
)
def test_states_of_packages(status: str, state: str | None) -> None:
    found = parse.packages(f"nvidia-dkms-580-open 1 {status} \n")

    assert [row["state"] for row in found] == ([state] if state else [])


@pytest.mark.parametrize(
    ("line", "version", "said"),
    [
        ("CUDA Version                              : 13.0", "13.0", None),
        ("CUDA Version : 13.3 [Deprecated; will be removed in CUDA 14.0. Use CUDA UMD Version instead]", "13.3", None),
        ("CUDA Version : 13.3 [Deprecated; …]\nCUDA UMD Version : 13.2", "13.2", None),
        ("CUDA Version : 13.3 [Deprecated; …]\nCUDA UMD Version : Not Found", None, "Not Found"),
        ("CUDA Version : N/A", None, "N/A"),
        ("CUDA Version :", None, None),
        ("", None, None),
    ],
)
def test_the_version_of_cuda(line: str, version: str | None, said: str | None) -> None:
    found = smi.details(f"Driver Version : 610.57.04\n{line}\nGPU 0000000F:01:00.0\n")

    assert (found.cuda_version, found.cuda_said) == (version, said)
