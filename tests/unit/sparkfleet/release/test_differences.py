"""One release against another, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sparkfleet.release.differences import differences
from sparknode.state.described import described
from sparknode.state.release import Hook, Rotation
from tests.plan.harness import CURRENT_TAG, PREFIX_TAG, release_of

OLD, NEW = described(release_of(PREFIX_TAG)), described(release_of(CURRENT_TAG))
TIMING = replace(release_of(CURRENT_TAG).timing, soak_s=120)


def test_the_two_tags_of_the_first_workload() -> None:
    lines = differences(OLD, NEW)
    assert lines[:3] == [
        f"image: {PREFIX_TAG} → {CURRENT_TAG}",
        "drafter backend: flex_attention → flash_attn",
        "prefix caching: off → on",
    ]
    assert "gates.long: unset → set" in lines
    assert not [line for line in lines if "prefix-caching" in line or "attention_backend" in line], "said above"


def test_a_flag_whose_word_stays_the_same_is_shown() -> None:
    args = ("serve", "--enable-prefix-caching", "--speculative-config", '{"attention_backend": "x"}')
    lines = differences(replace(OLD, args=()), replace(OLD, args=args))
    assert {"--enable-prefix-caching: unset → set", "--speculative-config attention_backend: unset → x"} <= set(lines)


def test_nothing_differs_from_itself() -> None:
    assert differences(NEW, NEW) == []


def test_what_restarts_an_engine_is_never_called_nothing() -> None:
    hook = Hook(command=("pool", "out"))
    changes: list[dict[str, Any]] = [
        {"rotation": Rotation(hook, hook, 10)},
        {"api_key_file": "/etc/key"},
        {"gpu": ("--device", "nvidia.com/gpu=all")},
        {},
    ]
    lines = [differences(OLD, replace(OLD, id="another", **change)) for change in changes]
    assert lines[0] == ["rotation: unset → set"]
    assert lines[1] == ["api_key_file: unset → /etc/key"]
    assert lines[2] == ["gpu: ['--gpus', 'all'] → ['--device', 'nvidia.com/gpu=all']"]
    assert lines[3][0].startswith("the serving unit's own text")


def test_a_bare_host_gets_the_choices() -> None:
    assert differences(None, NEW)[:3] == ["model: gemma4-26b-a4b-nvfp4", "profile: agentic", f"image: {CURRENT_TAG}"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"args": ("serve", "--max-num-seqs", "16")}, "--max-num-seqs: 64 → 16"),
        ({"args": ("serve", "--served-model-name", "a", "b")}, "--served-model-name: unset → a b"),
        ({"args": ("serve", "--max-num-seqs", "64", "--seed", "-1")}, "--seed: unset → -1"),
        ({"args": ("serve", "--x", "{broken")}, "--x : unset → {broken"),
        ({"env": {"A": "2"}}, "variable A: 1 → 2"),
        ({"env": {}}, "variable A: 1 → unset"),
        ({"commits": {"org/m": "c" * 40}}, "weights of org/m: bbbbbbbbbbbb → cccccccccccc"),
        ({"timing": replace(TIMING, soak_s=60)}, "timing.soak_s: 120 → 60"),
        ({"digest": "sha256:" + "9" * 64}, "image digest: 888888888888 → 999999999999"),
    ],
)
def test_each_kind_of_change_is_one_line(changes: dict[str, Any], line: str) -> None:
    old = replace(
        OLD,
        args=("serve", "--max-num-seqs", "64"),
        env={"A": "1"},
        commits={"org/m": "b" * 40},
        timing=TIMING,
        digest="sha256:" + "8" * 64,
    )
    found = differences(old, replace(old, **changes))
    assert line in found
    assert len([text for text in found if not text.startswith("--max-num-seqs")]) <= 1
