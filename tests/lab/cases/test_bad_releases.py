"""A release that does not hold: one host tries it, goes back by itself, and no other host is touched."""

from __future__ import annotations

import re

from sparkfleet.rollout import exit_codes
from tests.lab import control, faults
from tests.lab.cases.reading import OTHER_TAG, PREFIX_TAG, Node, pyinfra, shown


def test_the_canary_goes_back_and_the_others_are_left_alone(serving: list[Node]) -> None:
    old = {node.name: shown(node.name)["id"] for node in serving}
    bad = {node.name: shown(node.name, f"image_tag={OTHER_TAG}")["id"] for node in serving}
    started = {node.name: (node.container() or {})["State"]["StartedAt"] for node in serving}
    tried_before = {node.name: node.tried(bad[node.name]) for node in serving}
    control.set_knobs("all", OTHER_TAG, die_on_first_request=True)

    canary, *others = serving
    outcome = pyinfra("--data", f"image_tag={OTHER_TAG}")

    assert outcome.code == exit_codes.REVERTED, outcome.output
    assert "short-chat" in outcome.output
    assert canary.link("current") == canary.link("verified") == old[canary.name]
    assert canary.serves()
    assert canary.journal()[-1]["state"] == "reverted"
    assert "short-chat" in canary.journal()[-1]["error"]
    for node in others:
        assert (node.container() or {})["State"]["StartedAt"] == started[node.name]
        assert node.tried(bad[node.name]) == tried_before[node.name]
        assert node.serves()

    again = pyinfra("--data", f"image_tag={OTHER_TAG}")
    assert again.code == exit_codes.REFUSED, again.output
    assert re.search(r"failed here at \S+: short-chat: ", again.output), again.output
    control.clear_knobs()
    retry = f"retry_release={bad[canary.name]}"
    mended = pyinfra("--data", f"image_tag={OTHER_TAG}", "--data", retry, "--limit", canary.name)
    assert mended.code == 0, mended.output
    assert canary.link("verified") == bad[canary.name]


def test_an_unfit_host_is_refused_before_any_change(serving: list[Node]) -> None:
    started = [(node.container() or {})["State"]["StartedAt"] for node in serving]
    on_disk = [node.files() for node in serving]
    faults.break_gpu(serving[2].name)
    outcome = pyinfra("--data", f"image_tag={PREFIX_TAG}")
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert "gpu.visible" in outcome.output
    assert serving[2].name in outcome.output
    assert [(node.container() or {})["State"]["StartedAt"] for node in serving] == started
    assert [node.files() for node in serving] == on_disk
