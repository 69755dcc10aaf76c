"""What systemd, Docker and the logs of a deployed host say: order, limits, deadlines, and no secret anywhere."""

from __future__ import annotations

import base64
import json
import os
import shlex

from tests.lab import faults
from tests.lab.cases.reading import STATE, Node, report_of, start_pyinfra, wait_for

KEY, KEY_FILE = "lab-key-4f1c9b7a", "/etc/sparkfleet-lab-key"
PATTERNS = "/root/lab-patterns"
TOKEN = "hf_labtoken7d21e8"


def seconds(text: str) -> float:
    """A time span as systemd prints it: `1min 30s`."""
    units = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 0.001}
    total = 0.0
    for part in text.split():
        number = part.rstrip("hmins")
        total += float(number) * units[part[len(number) :]]
    return total


def test_the_serving_unit_is_bounded_in_starts_and_stops(node: Node) -> None:
    unit = node.unit(
        "Restart",
        "RestartUSec",
        "StartLimitIntervalUSec",
        "TimeoutStartUSec",
        "TimeoutStopUSec",
        "KillMode",
        "Requires",
        "Wants",
        "After",
        "UnitFileState",
    )
    timing = node.release()["timing"]
    assert (unit["Restart"], unit["KillMode"], unit["UnitFileState"]) == ("always", "mixed", "enabled")
    assert seconds(unit["RestartUSec"]) == 10
    assert unit["StartLimitIntervalUSec"] == "0", "no start is the last one"
    linked = node.sudo(
        "realpath --no-symlinks /etc/systemd/system/$(readlink /etc/systemd/system/sparkfleet-serve.service)"
    )
    assert linked.strip() == f"{STATE}/current/sparkfleet-serve.service"
    assert timing["shutdown_timeout_s"] < timing["docker_stop_s"] < timing["unit_stop_s"]
    assert seconds(unit["TimeoutStopUSec"]) == timing["unit_stop_s"]
    assert seconds(unit["TimeoutStartUSec"]) >= timing["memory_wait_s"]
    assert "docker.service" in unit["Wants"].split()
    assert "docker.service" not in unit["Requires"].split()
    assert {"docker.service", "sparkfleet-activate.service"} <= set(unit["After"].split())


def test_after_a_boot_docker_comes_first_then_the_engine(node: Node) -> None:
    faults.power_cut(node.name)
    wait_for("the server after the boot", node.serves, 90)
    moments = {}
    for unit in ("docker.service", "sparkfleet-serve.service"):
        shown = node.unit(
            "ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic", "ActiveState", "Result", unit=unit
        )
        assert (shown["ActiveState"], shown["Result"]) == ("active", "success"), unit
        moments[unit] = shown
    began = {unit: int(shown["ExecMainStartTimestampMonotonic"]) for unit, shown in moments.items()}
    assert 0 < began["docker.service"] < began["sparkfleet-serve.service"]
    ended = node.unit("ActiveState", "ConditionResult", unit="sparkfleet-activate.service")
    assert ended == {"ActiveState": "inactive", "ConditionResult": "no"}, "no order stands"
    assert node.unit("ActiveState", unit="sparkfleet-watch.timer")["ActiveState"] == "active"


def test_the_key_and_the_token_are_nowhere_to_be_read(node: Node) -> None:
    # sudo logs what it runs, so these commands must not name the secrets themselves.
    for path, text in ((KEY_FILE, f"VLLM_API_KEY={KEY}\n"), (PATTERNS, f"{KEY}\n{TOKEN}\n")):
        node.sudo(f"umask 077; echo {base64.b64encode(text.encode()).decode()} | base64 -d > {path}")
    os.environ["HF_TOKEN"] = TOKEN
    try:
        run = start_pyinfra("--limit", node.name, "--data", f"api_key_file={KEY_FILE}", "--diff", "-v")
        output, _ = run.communicate(timeout=180)
    finally:
        del os.environ["HF_TOKEN"]
    assert run.returncode == 0, output
    assert node.curl("/v1/models", "-o /dev/null", "-w '%{http_code}'") == "401"
    header = shlex.quote(f"Authorization: Bearer {KEY}")
    assert node.curl("/v1/models", "-o /dev/null", "-w '%{http_code}'", "-H", header) == "200"

    container = node.container() or {}
    places = {
        "pyinfra's output": output,
        "the units": node.sudo("systemctl show 'sparkfleet-*'; systemctl cat 'sparkfleet-*'"),
        "the container's command": json.dumps([container["Path"], container["Args"], container["Config"]["Cmd"]]),
        "ps": node.sudo("ps -eww -o args"),
        "the log": node.sudo("journalctl --no-pager"),
        "the engine's log": node.sudo("docker logs sparkfleet-serve 2>&1"),
        "the state": node.sudo(f"grep -rlF -f {PATTERNS} {STATE} || true"),
        "the report": report_of(output),
    }
    for place, text in places.items():
        assert KEY not in text, place
        assert TOKEN not in text, place
    assert places["the state"] == ""
    assert node.sudo(f"stat -c %a {KEY_FILE}").strip() == "600"
