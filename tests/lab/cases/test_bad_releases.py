"""A release that does not hold: one host tries it, goes back by itself, and no other host is touched."""

from __future__ import annotations

import pytest

from tests.lab import control, faults
from tests.lab.cases.reading import OTHER_TAG, STATE, Node, pyinfra, shown, wait_for


@pytest.mark.parametrize(
    ("fault", "gate"),
    [
        ({"die_on_first_request": True}, "short-chat"),
        ({"never_ready": True}, "ready"),
        ({"acceptance": 0.0}, "acceptance-short"),
        ({"empty_text": True}, "short-chat"),
        ({"wrong_model_name": True}, "identity"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_the_canary_goes_back_and_the_others_are_left_alone(
    serving: list[Node], fault: dict[str, object], gate: str
) -> None:
    old = {node.name: shown(node.name)["id"] for node in serving}
    bad = {node.name: shown(node.name, f"image_tag={OTHER_TAG}")["id"] for node in serving}
    started = {node.name: (node.container() or {})["State"]["StartedAt"] for node in serving}
    tried_before = {node.name: node.tried(bad[node.name]) for node in serving}
    control.set_knobs("all", OTHER_TAG, **fault)

    canary, *others = serving
    # Each case fails the same release, which the host then refuses until it is named.
    retry = f"retry_release={bad[canary.name]}"
    outcome = pyinfra("--data", f"image_tag={OTHER_TAG}", "--data", retry)

    assert outcome.code != 0
    assert gate in outcome.output
    assert canary.link("current") == canary.link("verified") == old[canary.name]
    assert canary.serves()
    assert canary.journal()[-1]["state"] == "reverted"
    assert gate in canary.journal()[-1]["error"]
    for node in others:
        assert (node.container() or {})["State"]["StartedAt"] == started[node.name]
        assert node.tried(bad[node.name]) == tried_before[node.name]
        assert node.serves()


def test_memory_that_does_not_come_back_starts_nothing(serving: list[Node]) -> None:
    canary = serving[0]
    old = shown(canary.name)["id"]
    control.set_knobs(canary.name, memory_return_s=45)
    retry = f"retry_release={shown(canary.name, f'image_tag={OTHER_TAG}')['id']}"
    outcome = pyinfra("--data", f"image_tag={OTHER_TAG}", "--data", retry, "--limit", canary.name)
    assert outcome.code != 0
    assert "memory did not come back" in outcome.output
    assert canary.unit("ActiveState")["ActiveState"] == "inactive", "nothing is started into memory that is not there"
    assert canary.journal()[-1]["state"] == "failed"

    wait_for("the memory", lambda: canary.available_kib() > 100 * 1024**2, 90)
    again = pyinfra("--limit", canary.name)
    assert again.code == 0, again.output
    assert canary.link("current") == canary.link("verified") == old
    assert canary.serves()


def test_an_unfit_host_is_refused_before_any_change(serving: list[Node]) -> None:
    started = [(node.container() or {})["State"]["StartedAt"] for node in serving]
    on_disk = [node.sudo(f"find {STATE} -not -path '*/cache/*' -printf '%p %T@\\n' | sort") for node in serving]
    faults.break_gpu(serving[2].name)
    outcome = pyinfra("--data", f"image_tag={OTHER_TAG}")
    assert outcome.code != 0
    assert "gpu.visible" in outcome.output
    assert serving[2].name in outcome.output
    assert [(node.container() or {})["State"]["StartedAt"] for node in serving] == started
    after = [node.sudo(f"find {STATE} -not -path '*/cache/*' -printf '%p %T@\\n' | sort") for node in serving]
    assert after == on_disk
