"""Whose a process is, by its control group, in the shapes that systemd, Docker and others give it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknode.host.owners import Owner, owner

ID = "c0ffee" * 10 + "abcd"
USER = "0::/user.slice/user-1000.slice"


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("0::/system.slice/vllm-qwen.service", Owner("unit", "vllm-qwen.service")),
        ("0::/system.slice/system-vllm.slice/vllm@qwen.service", Owner("unit", "vllm@qwen.service")),
        ("0::/system.slice/vllm.service/worker", Owner("unit", "vllm.service")),
        ("4:pids:/system.slice/vllm.service,1:name=systemd:/system.slice/vllm.service", Owner("unit", "vllm.service")),
        ("0::/system.slice/docker-compose-vllm.service", Owner("unit", "docker-compose-vllm.service")),
        (f"{USER}/user@1000.service/app.slice/llm.service", Owner("user-unit", "llm.service", 1000)),
        (f"{USER}/session-3.scope", Owner("session", "session-3.scope", 1000)),
        (f"{USER}/user@1000.service/app.slice/vte-spawn-1.scope", Owner("session", "vte-spawn-1.scope", 1000)),
        (f"{USER}/user@1000.service/init.scope", Owner("unknown", None, 1000)),
        (USER, Owner("gone", None, 1000)),
        ("0::/system.slice/x.service (deleted)", Owner("gone")),
        ("0::/machine.slice/libpod-abc.scope/container", Owner("container")),
        ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope", Owner("container")),
        ("0::/lxc.payload.101/system.slice/vllm.service", Owner("container")),
        (f"{USER}/user@1000.service/app.slice/docker.service/abc", Owner("container", None, 1000)),
        ("0::/", Owner("unknown")),
        ("", Owner("unknown")),
    ],
)
def test_owners(cgroup: str, expected: Owner) -> None:
    assert owner(cgroup, None) == expected


@pytest.mark.parametrize("cgroup", [f"0::/system.slice/docker-{ID}.scope", f"0::/docker/{ID}", f"3:pids:/docker/{ID}"])
def test_a_container_of_docker_is_dead_where_docker_knows_it_no_more(cgroup: str) -> None:
    assert owner(cgroup, [ID]) == Owner("container")
    assert owner(cgroup, None) == Owner("container"), "nobody said which run"
    assert owner(cgroup, []) == Owner("gone")


@given(st.text())
def test_any_text_has_an_owner(cgroup: str) -> None:
    assert owner(cgroup, []).kind in {"container", "unit", "user-unit", "session", "gone", "unknown"}
