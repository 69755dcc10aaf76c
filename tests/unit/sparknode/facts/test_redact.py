"""Redaction: what names a machine or opens a door is gone, what a check reads stays, and no text takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparknode.facts.redact import NO_UUID, redacted

# What no bundle may hold, in the places where the field shows it.
SECRETS = {
    'DGX_SERIAL_NUMBER="S0123456789AB"': "S0123456789AB",
    "DGX_SERIAL_NUMBER=S0123456789AB": "S0123456789AB",
    "    Serial Number                                      : 1654922001234": "1654922001234",
    '{"Name": "SSD", "Serial": "S6XYNS0W123456"}': "S6XYNS0W123456",
    "    GPU PDI                                            : 0x8ae21ce04abcb64b": "8ae21ce0",
    "        Chassis Serial Number                          : 1654922001234": "1654922001234",
    "        GPU Fabric GUID                                : 0x00a1b2c3d4e5f607": "a1b2c3d4",
    "\t\t<serial>1654922001234</serial>": "1654922001234",
    "\t\t<pdi>0x8ae21ce04abcb64b</pdi>": "8ae21ce0",
    "\t\t<gpu_fabric_guid>0x00a1b2c3d4e5f607</gpu_fabric_guid>": "a1b2c3d4",
    "\tService Tag: 7XJ4K93": "7XJ4K93",
    "node_guid: 0xec0d9a03004f3c2e": "ec0d9a03",
    "nvme0: eui.0025384b21b0c3f1": "0025384b",
    "    GPU UUID                                           : GPU-6f1c2d3e-1111-2222-3333-444455556666": "6f1c2d3e",
    "nvidia.com/gpu=GPU-6f1c2d3e-1111-2222-3333-444455556666": "6f1c2d3e",
    '["VLLM_API_KEY=a b\\"c", "PATH=/bin"]': "a b",
    "HF_TOKEN=abcdef": "abcdef",
    "token hf_AbCdEfGhIjKlMnOp": "AbCdEfGh",
    '["--api-key", "very-secret", "--port", "8000"]': "very-secret",
    '["--api-key","very-secret","--port","8000"]': "very-secret",
    "--api-key=very-secret --port 8000": "very-secret",
    "Authorization: Bearer abc.def-ghi": "abc.def",
    '"HttpProxy":"http://ann:pass@proxy:3128"': "ann:pass",
    "LISTEN 0 128 10.1.2.3:22 0.0.0.0:*": "10.1.2.3",
    "link/ether 3c:6d:66:aa:bb:cc brd": "3c:6d:66",
    "inet6 fe80::3e6d:66ff:feaa:bbcc/64": "66ff:feaa",
    "2001:db8:1234:5678:9abc:def0:1234:5678": "9abc:def0",
}


@pytest.mark.parametrize("text", SECRETS)
def test_what_names_a_machine_or_opens_a_door_is_taken_out(text: str) -> None:
    assert SECRETS[text] in text
    assert SECRETS[text] not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "NVIDIA GB10, 12.1, 580.178.04, 38, 4.21, 208, 0, [N/A], [N/A]",
        "LISTEN 0 4096 127.0.0.1:8000 0.0.0.0:* users:((vllm,pid=9,fd=1))",
        "4155, VLLM::EngineCore, 97000 MiB",
        'DGX_OTA_DATE="Thu Jun 18 17:40:28 EDT 2026"',
        "GPU 0000000F:01:00.0",
        "    GSP Firmware Version                               : 580.178.04",
        "/sys/bus/pci/devices/000f:01:00.0/uevent DRIVER=nvidia PCI_ID=10DE:2E12",
        "--max-num-batched-tokens 32768 --tokenizer /models/gemma4",
    ],
)
def test_what_a_check_needs_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_uuid_that_is_no_secret_may_stay() -> None:
    kept, other = "b488217b-3895-4fc0-b1bf-ab7005a2d45a", "b488217b-3895-4fc0-b1bf-ab7005a2d45b"
    assert redacted(f"{kept.upper()} {other}", {kept}) == f"{kept.upper()} {NO_UUID}"


# 100 kB on one line: each of these was minutes for patterns that look back and forth.
LONG = 100_000
PARTS = [
    *("A", "9", "a-", "_", " ", "\t", '"', "\\", ":", "/", "=", ".", ",", "<", ">", "--", "://", "::", "a:", "1.", "@"),
    *("serial", "serial:", "serial ", "uuid", "pdi", "KEY", "KEY_", "TOKEN=", "--token", "--key", "bearer ", "basic"),
    *("hf_", "sk-", "0f:", "12345678-", "1.2.3.4", "eui.", "://a:", "<serial", "<uuid>", "é", "\u212a", "\x00"),
]
FAST_S = 1.0


def seconds(text: str) -> float:
    started = time.process_time()
    redacted(text)
    return time.process_time() - started


@pytest.mark.parametrize("part", PARTS)
def test_one_long_line_of_one_thing_takes_less_than_a_second(part: str) -> None:
    assert seconds((part * LONG)[:LONG]) < FAST_S


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=6), st.text(max_size=20), st.text(max_size=20))
def test_no_long_line_takes_more_than_a_second(parts: list[str], before: str, after: str) -> None:
    piece = "".join(parts)
    assert seconds(before + (piece * (LONG // len(piece) + 1))[:LONG] + after) < FAST_S


@given(st.sampled_from(sorted(SECRETS)), st.text(max_size=80), st.text(max_size=80))
def test_a_secret_on_a_line_of_its_own_is_gone_whatever_stands_around(text: str, before: str, after: str) -> None:
    shown = redacted(f"{before}\n{text}\n{after}")
    assert SECRETS[text] not in shown or SECRETS[text] in before + after


def test_a_secret_at_the_end_of_a_long_line_is_gone() -> None:
    line = "GET /v1/models?q=" + "A" * LONG + " Authorization: Bearer abc.def-ghi"
    assert "abc.def" not in redacted(line)
