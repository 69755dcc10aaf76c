#!/usr/bin/python3 -IS
"""Simulated nvidia-smi of the sparkfleet lab: prints what a GB10 was seen to print, or misbehaves when told to.

What to say stands in /opt/sparkfleet-lab/gpu.json, which the lab writes: mode (ok, no-devices, hang, garbage,
unknown-error), exit_code, driver_version, power_w. Inside a container the engine writes the file instead: mode lost.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

UUID = "GPU-00000000-0000-0000-0000-000000000000"
NOTE = "Simulated by the sparkfleet lab; there is no GPU here."
FALLBACK: dict[str, Any] = {"mode": "ok", "exit_code": 6, "driver_version": "580.178.04", "serving_mib": 0}


def behaviour() -> dict[str, Any]:
    for path in ("/opt/sparkfleet-lab/gpu.json", "/tmp/sparkfleet-lab-gpu.json"):
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 (pathlib doubles the start time)
                return {**FALLBACK, **json.load(file)}
        except (OSError, ValueError):
            # Inside a container the lab's folder is absent; the engine's file is there when something is wrong.
            continue
    return FALLBACK


def values(gpu: dict[str, Any]) -> dict[str, str]:
    serving = gpu["serving_mib"] > 0
    power = gpu.get("power_w") or (35.65 if serving else 4.21)
    # A wedged GPU draws little because its clocks stay low, however busy it is.
    clock = f"{(650 if power < 30 else 2522) if serving else 208} MHz"
    return {
        "index": "0",
        "name": "NVIDIA GB10",
        "gpu_name": "NVIDIA GB10",
        "uuid": UUID,
        "gpu_uuid": UUID,
        "count": "1",
        "compute_cap": "12.1",
        "driver_version": gpu["driver_version"],
        "memory.total": "[N/A]",
        "memory.used": "[N/A]",
        "memory.free": "[N/A]",
        "power.draw": f"{power:.2f} W",
        "power.limit": "[N/A]",
        "temperature.gpu": "52" if serving else "33",
        "utilization.gpu": "96 %" if serving else "0 %",
        "utilization.memory": "0 %",
        "clocks.sm": clock,
        "clocks.gr": clock,
        "clocks.mem": "[N/A]",
        "clocks.max.graphics": "3003 MHz",
        "clocks.max.sm": "3003 MHz",
        "pstate": "P0" if serving else "P8",
        "persistence_mode": "Enabled",
        "pci.bus_id": "0000000F:01:00.0",
        "vbios_version": "9A.0B.25.00.00",
        "fan.speed": "[N/A]",
        "mig.mode.current": "[N/A]",
    }


def process(gpu: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [("4155", "VLLM::EngineCore", gpu["serving_mib"])] if gpu["serving_mib"] else []


def query(gpu: dict[str, Any], fields: list[str], options: list[str]) -> int:
    known = values(gpu)
    for field in fields:
        if field not in known:
            print(f'Field "{field}" is not a valid field to query.\n')
            return 2
    if "noheader" not in options:
        print(", ".join(fields))
    row = []
    for field in fields:
        text = known[field]
        if "nounits" in options and text.rsplit(" ", 1)[-1] in ("W", "%", "MHz", "MiB"):
            text = text.rsplit(" ", 1)[0]
        row.append(text)
    print(", ".join(row))
    return 0


def query_apps(gpu: dict[str, Any], fields: list[str], options: list[str]) -> int:
    if "noheader" not in options:
        print(", ".join(fields))
    unit = "" if "nounits" in options else " MiB"
    for pid, name, used in process(gpu):
        known = {
            "pid": pid,
            "process_name": name,
            "name": name,
            "used_gpu_memory": f"{used}{unit}",
            "used_memory": f"{used}{unit}",
            "gpu_uuid": UUID,
        }
        print(", ".join(known.get(field, "[N/A]") for field in fields))
    return 0


def table(gpu: dict[str, Any]) -> int:
    version = gpu["driver_version"]
    state = "P0" if gpu["serving_mib"] else "P8"
    line = "+" + "-" * 89 + "+"
    split = "+" + "-" * 41 + "+" + "-" * 24 + "+" + "-" * 22 + "+"
    rows = [
        line,
        f"| NVIDIA-SMI {version:<23}Driver Version: {version:<15}CUDA Version: 13.0     |",
        split,
        "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |",
        "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |",
        "|                                         |                        |               MIG M. |",
        "|" + "=" * 41 + "+" + "=" * 24 + "+" + "=" * 22 + "|",
        "|   0  NVIDIA GB10                    On  |   0000000F:01:00.0 Off |                  N/A |",
        f"| N/A   33C    {state}              4W /  N/A  | Not Supported          |      0%      Default |",
        "|                                         |                        |                  N/A |",
        split,
        "",
        line,
        f"| {'Processes:':<88}|",
        "|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |",
        "|        ID   ID                                                               Usage      |",
        "|" + "=" * 89 + "|",
    ]
    listed = process(gpu)
    for pid, name, used in listed:
        rows.append(f"|    0   N/A  N/A {pid:>15}      C   {name:<36}{str(used) + 'MiB':>10} |")
    if not listed:
        rows.append(f"|  {'No running processes found':<87}|")
    print("\n".join([*rows, line, NOTE]))
    return 0


def xml(gpu: dict[str, Any]) -> int:
    print('<?xml version="1.0" ?>')
    print(f"<!-- {NOTE} -->")
    print("<nvidia_smi_log>")
    print(f"  <driver_version>{gpu['driver_version']}</driver_version>")
    print("  <cuda_version>13.0</cuda_version>\n  <attached_gpus>1</attached_gpus>")
    print('  <gpu id="0000000F:01:00.0">\n    <product_name>NVIDIA GB10</product_name>')
    for block in ("fb_memory_usage", "bar1_memory_usage"):
        print(f"    <{block}><total>N/A</total><used>N/A</used><free>N/A</free></{block}>")
    print("    <temperature><gpu_temp>38 C</gpu_temp></temperature>\n    <processes>")
    for pid, name, used in process(gpu):
        print(
            f"      <process_info><pid>{pid}</pid><type>C</type><process_name>{name}</process_name>"
            f"<used_memory>{used} MiB</used_memory></process_info>"
        )
    print("    </processes>\n  </gpu>\n</nvidia_smi_log>")
    return 0


def misbehave(gpu: dict[str, Any]) -> int:
    mode = gpu["mode"]
    if mode == "hang":
        time.sleep(86400)
    if mode == "garbage":
        print("\x00\x7fNVIDIA GB\x1b[31m, ,, [N/A\n<!doctype html>")
        return 0
    if mode == "unknown-error":
        print("Unable to determine the device handle for GPU0: 000F:01:00.0: Unknown Error")
        return 255
    if mode == "lost":
        print("Failed to initialize NVML: Unknown Error")
        return 255
    print("No devices were found")
    return int(gpu["exit_code"])


def main(arguments: list[str]) -> int:
    gpu = behaviour()
    if arguments[:1] in (["--version"], ["-h"], ["--help"]):
        print(f"NVIDIA-SMI version  : {gpu['driver_version']}\nDRIVER version      : {gpu['driver_version']}")
        print(f"CUDA Version        : 13.0\n{NOTE}")
        return 0
    if gpu["mode"] != "ok":
        return misbehave(gpu)
    options: list[str] = []
    for argument in arguments:
        if argument.startswith("--format="):
            options = [option.strip() for option in argument.partition("=")[2].split(",")]
    for argument in arguments:
        name, _, value = argument.partition("=")
        fields = [field.strip() for field in value.split(",")]
        if name == "--query-gpu":
            return query(gpu, fields, options)
        if name in ("--query-compute-apps", "--query-accounted-apps"):
            return query_apps(gpu, fields, options)
    if "-L" in arguments or "--list-gpus" in arguments:
        print(f"GPU 0: NVIDIA GB10 (UUID: {UUID})")
        return 0
    return xml(gpu) if "-x" in arguments else table(gpu)


sys.exit(main(sys.argv[1:]))
