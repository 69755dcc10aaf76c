"""Releases: their identity, the nearest combination when one is refused, marked overrides, and speed."""

from __future__ import annotations

import copy
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sparkfleet import ROOT
from sparkfleet.catalog.catalog import Catalog
from sparkfleet.errors import LockError, RefusedError
from sparkfleet.inventory.entry import HostEntry
from sparkfleet.release.engine import engines
from sparkfleet.release.lockfile import Lock
from sparkfleet.release.nearest import nearest_working
from sparkfleet.release.recipe import Choice
from sparkfleet.release.release import Operation, compile_release
from sparkfleet.release.rules import Deployment
from sparkfleet.release.unit import docker_run
from sparkfleet.rollout.fleet_run import plan_run
from sparknode.base.document import content_id
from sparknode.base.shape import Node, written
from sparknode.errors import Refused
from sparknode.state.release import AfterLoad, Hook, HttpCall, Memory, Release, Rotation, Throughput
from sparknode.state.releases import from_node
from tests.plan.harness import lock_document
from tests.unit.sparkfleet.release.combos import (
    CATALOG,
    CURRENT,
    MODEL,
    PREFIX,
    STOCK,
    TRIAL,
    choice,
    compiled,
    rendered,
)

DENSE, AWQ_IMAGE = "gemma4-31b-deckard-awq", "2026-07-27-v0.26.0"
LOCK = Lock.model_validate(lock_document())


def locked(asked: Choice, catalog: Catalog = CATALOG, pins: Lock = LOCK) -> Release:
    return compile_release(catalog, pins, asked, TRIAL).release


def test_the_same_input_gives_the_same_id_in_another_process() -> None:
    command = [sys.executable, "-m", "sparkfleet", "show", "--model", MODEL, "--image-tag", CURRENT, "--format", "json"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(shown.stdout)["id"] == compiled().id


def test_any_change_gives_another_id() -> None:
    asked = choice()
    moved = copy.deepcopy(lock_document())
    moved["images"][CURRENT]["digest"] = "sha256:" + "99" * 32
    other_files = copy.deepcopy(lock_document())
    other_files["repos"]["z-lab/gemma-4-26B-A4B-it-DFlash"]["files"][0]["sha256"] = "ef" * 32
    rows = CATALOG.model_dump(by_alias=True)
    rows["profiles"]["agentic"]["gates"]["short"]["min_acceptance_rate"] = 0.31
    ids = [
        locked(asked).id,
        locked(replace(asked, image_tag=PREFIX)).id,
        locked(replace(asked, profile="production")).id,
        locked(replace(asked, overrides={"max_num_seqs": 63})).id,
        locked(asked, pins=Lock.model_validate(moved)).id,
        locked(asked, pins=Lock.model_validate(other_files)).id,
        locked(asked, catalog=Catalog.model_validate(rows)).id,
        compile_release(CATALOG, LOCK, asked, replace(TRIAL, api_key_file="/etc/k"))
        .release.id,
        compile_release(CATALOG, LOCK, asked, TRIAL, "cdi").release.id,
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)
    assert locked(asked).id == ids[0]


def test_the_id_is_the_hash_of_the_rest() -> None:
    release = locked(choice())
    document = written(release)
    assert content_id(document) == release.id == content_id({**document, "id": "anything"})


def pinned(release: Release) -> Release:
    """The same as a lock would have it."""
    image = replace(release.image, digest="sha256:" + "a1" * 32)
    artefacts = (replace(one, commit="c" * 40, manifest_sha256="d" * 64) for one in release.artefacts)
    found = replace(release, image=image, artefacts=tuple(artefacts))
    return replace(found, id=content_id(written(found)))


def test_what_the_controller_builds_is_what_the_node_reads() -> None:
    rotation = Rotation(Hook(http=HttpCall("POST", "http://lb/out")), Hook(command=("pool", "in")), 10)
    operation = Operation(soak_s=0, watch=False, rotation=rotation)
    rotated = compile_release(CATALOG, LOCK, choice(), replace(TRIAL, api_key_file="/etc/k"), "cdi", operation).release
    built = [pinned(outcome.release) for outcome in rendered().values() if outcome.recipe.engine.deployable]
    for release in (rotated, *built):
        document = json.loads(json.dumps(written(release)))
        found = from_node(Node(document, "release"))
        assert found == release
        assert written(found) == document, "each key, and each as it was spelled"


def test_what_is_not_locked_is_shown_and_refused_by_the_node() -> None:
    document = json.loads(json.dumps(written(compiled().release)))
    assert (document["image"]["digest"], document["artefacts"][0]["manifest_sha256"]) == (None, None)
    with pytest.raises(Refused, match=r"release\.image\.digest: found null, expected a text that is not empty"):
        from_node(Node(document, "release"))
    with pytest.raises(Refused, match="is not locked; run `python -m sparkfleet lock`"):
        assert compiled().release.image.pinned


def test_a_locked_release_runs_a_tag_of_the_digest() -> None:
    release = locked(choice())
    assert release.image.reference == "ghcr.io/aeon-7/aeon-vllm-ultimate:sha256-" + "a1" * 32
    assert f"sha256-{'a1' * 32}" in release.container.mounts[2].source


def test_rolling_back_changes_backend_and_caching_together() -> None:
    new, old = compiled(image=CURRENT).release, compiled(image=PREFIX).release
    assert (new.serve.drafter_backend, new.serve.prefix_caching) == ("flash_attn", True)
    assert (old.serve.drafter_backend, old.serve.prefix_caching) == ("flex_attention", False)
    assert "--no-enable-prefix-caching" in old.container.args
    assert new.gates.long is not None
    assert new.gates.long.min_acceptance_rate == 0.2
    assert old.gates.long is old.gates.very_long is None


def test_the_engine_is_asked_for_everything_that_it_is_started_for_and_nothing_else() -> None:
    asked = compiled().release.gates
    assert all(getattr(asked, gate) for gate in ("streaming", "reasoning", "tool_call", "image", "gpu"))
    assert asked.very_long is not None
    assert asked.very_long.prompt_tokens == 9000
    assert asked.control_tokens == ("<channel|>", "<tool_call|>", "<|channel>", "<|think|>", "<|tool_call>")
    assert asked.after_load == AfterLoad(min_available_gib=4, min_power_w=30, min_clock_mhz=1400)
    assert not compiled(enable_auto_tool_choice=None).release.gates.tool_call
    assert not compiled(language_model_only=True).release.gates.image
    assert not compiled("short-context", AWQ_IMAGE, DENSE).release.gates.image


def test_floors_are_those_of_model_and_line() -> None:
    gates = compiled().release.gates
    assert gates.throughput == Throughput(min_tokens_per_second=60, max_ttft_s=2)
    assert (gates.short.min_acceptance_rate, gates.short.min_mean_acceptance_length) == (0.3, 3.5)
    newer = compiled(image="2026-08-16-v0.27.1").release.gates
    assert newer.floors.min_tokens_per_second == 45
    assert newer.long is not None
    assert (newer.short.min_acceptance_rate, newer.long.min_mean_acceptance_length) == (0.15, 1.8)
    assert compiled("nvfp4-kv").release.gates.throughput is None
    dense = compiled("short-context", AWQ_IMAGE, DENSE).release.gates
    assert dense.throughput == Throughput(min_tokens_per_second=20)
    plain = compiled("max-throughput", AWQ_IMAGE, DENSE).release.gates.floors
    assert plain.min_tokens_per_second == 6


def test_another_draft_length_is_held_to_the_mean_acceptance_length() -> None:
    longer = compiled(num_speculative_tokens=15).release.gates.short
    assert (longer.min_acceptance_rate, longer.min_mean_acceptance_length) == (None, 3.5)
    shorter = compiled(num_speculative_tokens=3).release.gates.short
    assert shorter.min_acceptance_rate is None
    assert 2 < (shorter.min_mean_acceptance_length or 0) < 3.5
    alone = compiled(image="2026-08-16-v0.27.1", num_speculative_tokens_per_batch_size=[[1, 8, 3], [9, 64, 10]])
    assert alone.release.gates.short.min_acceptance_rate is None


def test_a_profile_may_choose_another_drafter_of_the_model() -> None:
    document = CATALOG.model_dump(by_alias=True)
    document["profiles"]["production"].update(
        drafter="assistant", args={**document["profiles"]["production"]["args"], "kv_cache_dtype": "fp8"}
    )
    asked = choice("production", "2026-08-16-v0.27.1")
    release = compile_release(Catalog.model_validate(document), None, asked, TRIAL).release
    assert [one.repo for one in release.artefacts][1] == "google/gemma-4-26B-A4B-it-assistant"
    config = json.loads(release.container.args[release.container.args.index("--speculative-config") + 1])
    assert config == {"method": "mtp", "model": "/models/gemma4-assistant", "num_speculative_tokens": 4}
    assert release.gates.short.min_mean_acceptance_length == 1.5


def test_a_look_up_has_no_folder_and_no_floor() -> None:
    document = CATALOG.model_dump(by_alias=True)
    document["profiles"]["production"]["speculative_args"] = {
        "method": "ngram",
        "num_speculative_tokens": 4,
        "prompt_lookup_max": 4,
    }
    release = compile_release(Catalog.model_validate(document), None, choice("production"), TRIAL).release
    assert [one.role for one in release.artefacts] == ["target"]
    assert release.serve.speculative is True
    assert release.gates.short.min_acceptance_rate is None


def test_a_first_start_that_takes_long_is_waited_for_by_node_and_engine() -> None:
    for image, seconds in ((CURRENT, 2400), ("2026-09-11-v0.29.0-omni", 3600)):
        release = compiled("production", image).release
        assert release.timing.load_deadline_s == seconds
        assert release.container.env["VLLM_ENGINE_READY_TIMEOUT_S"] == str(seconds)


def test_served_names_are_the_operator_s() -> None:
    named = replace(choice(), served_names=("ours", "ours-fast"))
    release = compile_release(CATALOG, None, named, TRIAL).release
    assert release.serve.served_names == ("ours", "ours-fast")
    arguments = release.container.args
    at = arguments.index("--served-model-name")
    assert arguments[at + 1 : at + 4] == ("ours", "ours-fast", "--host")


def test_overrides_are_marked_with_what_they_replace() -> None:
    outcome = compiled("agentic", max_num_seqs=16, num_speculative_tokens=15, enforce_eager=True, max_model_len="100k")
    assert outcome.overridden == [
        "enforce_eager: true instead of the engine's default",
        "max_model_len: 100000 instead of 262144",
        "max_num_seqs: 16 instead of 64",
        "num_speculative_tokens: 15 instead of 10",
    ]
    assert (outcome.release.overrides or {})["max_model_len"] == 100000
    assert outcome.release.serve.max_model_len == 100000


@pytest.mark.parametrize(
    ("asked", "suggested"),
    [
        (choice(kv_cache_dtype="fp8"), "without kv_cache_dtype, the rest as asked"),
        (choice(drafter_attention_backend="flex_attention"), "without drafter_attention_backend, the rest as asked"),
        (choice(max_num_seqs=16, kv_cache_dtype="fp8"), "without kv_cache_dtype, keeping max_num_seqs=16"),
        (choice("nvfp4-kv", STOCK), "profile max-throughput, the rest as asked"),
        (choice("agentic", STOCK), "profile max-throughput, the rest as asked"),
        (choice("agentic", "lmsysorg-sglang"), "profile sglang-baseline, the rest as asked"),
        (replace(choice("stock-baseline"), hardware="rtx50"), f"image {STOCK}, the rest as asked"),
    ],
)
def test_a_refusal_names_the_nearest_combination_that_works(asked: Choice, suggested: str) -> None:
    with pytest.raises(RefusedError) as refused:
        compile_release(CATALOG, None, asked, TRIAL)
    assert "the nearest combination that works: " in refused.value.remedy
    assert suggested in refused.value.remedy


def test_a_proven_image_is_nearer_than_a_candidate() -> None:
    with pytest.raises(RefusedError) as refused:
        compile_release(CATALOG, None, choice("short-context", CURRENT, DENSE), TRIAL)
    assert f"the nearest combination that works: image {AWQ_IMAGE}" in refused.value.remedy


def test_what_the_owner_has_to_write_down_is_its_own_remedy() -> None:
    words = nearest_working(CATALOG, choice(), Deployment())
    assert words == "the same combination, once the points above are written into the inventory"


def test_a_deploy_is_never_pointed_at_an_engine_that_cannot_be_deployed() -> None:
    words = nearest_working(CATALOG, choice("agentic", "lmsysorg-sglang"), Deployment())
    assert words == f"image {CURRENT}, the rest as asked"


def test_an_unknown_tag_is_marked_in_the_release() -> None:
    asked = replace(choice(image="2026-12-01-v0.40.0"), image_line="2026-07-27-v0.26.0")
    outcome = compile_release(CATALOG, None, asked, TRIAL)
    assert outcome.release.image_line == "2026-07-27-v0.26.0"
    assert "image-undeclared" in {finding.id for finding in outcome.findings}


def test_the_engines_say_how_they_are_found_ready_and_measured() -> None:
    vllm, sglang = engines()["vllm"], engines()["sglang"]
    assert (vllm.api["readiness_generates"], sglang.api["readiness_generates"]) == (False, True)
    release = compiled().release
    assert release.engine.api is not None
    assert release.engine.api["metrics"]["accepted"] == "vllm:spec_decode_num_accepted_tokens_total"
    shown = compiled("sglang-baseline", "lmsysorg-sglang").release
    argv = docker_run(shown)
    assert argv[argv.index("--entrypoint") :][:5] == [
        "--entrypoint", "python3", "lmsysorg/sglang:latest", "-m", "sglang.launch_server",
    ]  # fmt: skip
    assert shown.memory == Memory(0.8)
    assert shown.serve.max_model_len == 262144


def test_a_fleet_of_200_hosts_compiles_in_under_two_seconds(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text(json.dumps(lock_document()))
    data = {
        "model": MODEL, "profile": "agentic", "hardware": "gb10", "image_tag": CURRENT,
        "lock_file": str(tmp_path / "lock.json"), "allow_unauthenticated": "a test",
        "terms_accepted": {MODEL: {"by": "a test", "on": "2026-11-01"}},
    }  # fmt: skip
    entries = [
        HostEntry(f"spark-{n}", f"10.0.0.{n}:22", ("fleet",), {**data, "overrides": {"max_num_seqs": 1 + n % 32}})
        for n in range(200)
    ]
    # Processor time: how busy the machine is otherwise must not decide.
    started = time.process_time()
    run = plan_run(entries)
    assert time.process_time() - started < 2
    assert len(run.hosts) == 200
    assert len({plan.compiled.id for plan in run.hosts.values()}) == 32


def processor_s(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_showing_one_host_costs_little_more_than_loading_the_libraries() -> None:
    libraries = processor_s("-c", "import jinja2, pydantic, pyinfra_cli.main, yaml")
    shown = processor_s("-m", "sparkfleet", "show", "spark-01.local", "--inventory", "inventory/prod.py")
    assert shown < 3 * libraries, "1.3 times on a quiet machine"


def test_a_lock_without_the_machine_s_build_is_refused() -> None:
    document = copy.deepcopy(lock_document())
    platform = document["images"][CURRENT]["platforms"].pop("arm64")
    document["images"][CURRENT]["platforms"]["amd64"] = platform
    with pytest.raises(LockError, match="no arm64 build"):
        locked(choice(), pins=Lock.model_validate(document))


def test_the_power_of_a_wedged_gpu_is_the_machines() -> None:
    known = CATALOG
    watch = compiled().release.watched
    assert watch is not None
    assert known.hardware["gb10"].wedged_power_w == watch.wedged_power_w == 30
    assert "wedged_power_w" in known.hardware["gb10"].sources
    # Nobody has seen one of these hang, so power never shortens the watch's wait.
    assert known.hardware["rtx50"].wedged_power_w is None
    unknown = known.hardware["gb10"].model_copy(update={"wedged_power_w": None})
    other = known.model_copy(update={"hardware": {"gb10": unknown}})
    unsure = compile_release(other, None, choice(), TRIAL).release.watched
    assert unsure is not None
    assert unsure.wedged_power_w == 0


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_an_engine_is_never_pid_1_of_its_container(engine: str) -> None:
    assert "--init" in engines()[engine].docker_options
    argv = compiled().argv
    assert argv.index("--init") < argv.index("--entrypoint")
    assert '"--init"' in compiled().release.unit
