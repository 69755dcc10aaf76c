"""Artefact rules against a folder with the real names and number of tensors, each with a twin that breaks it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkfleet import ROOT
from sparkfleet.catalog.catalog import load
from sparkfleet.release import contents, weights
from sparkfleet.release.lockfile import LockedFile
from sparkfleet.release.weights import Expected
from tests.lab import toymodels

KNOWN = load()
MODEL = KNOWN.models["gemma4-26b-a4b-nvfp4"]
assert MODEL.drafter
TARGET = weights.expected_of(MODEL, MODEL, toymodels.TARGET.commit)
DRAFTER = weights.expected_of(MODEL, MODEL.drafter, toymodels.TARGET.commit)


def locked(path: Path, name: str) -> LockedFile:
    data = path.read_bytes()
    return LockedFile(path=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def held(folder: Path) -> weights.Contents:
    """What is read of a folder's files as they are, each by its first bytes alone."""
    files = [locked(path, str(path.relative_to(folder))) for path in sorted(folder.rglob("*")) if path.is_file()]
    return contents.read(files, lambda file, size: (folder / file.path).read_bytes()[:size])


def problems(folder: Path, expected: Expected, target: Path | None = None) -> list[str]:
    return weights.problems(held(folder), expected, held(target) if target else None)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    toymodels.write(folder)
    return folder


def twin(store: Path, toy: toymodels.Toy, folder: Path) -> Path:
    """A copy whose files may be replaced, not written into: they are hard links."""
    return Path(shutil.copytree(store / toy.repo / toy.commit, folder / toy.fixture, copy_function=os.link))


def swap(folder: Path, name: str, old: str, new: str) -> None:
    """Replace a text of the same length within a file."""
    data = (folder / name).read_bytes()
    assert len(old) == len(new)
    assert data.count(old.encode()) >= 1, old
    (folder / name).unlink()
    (folder / name).write_bytes(data.replace(old.encode(), new.encode(), 1))


def configured(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / name).read_text())
    change(document)
    (folder / name).unlink()
    (folder / name).write_text(json.dumps(document))


def header(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: swap(folder, "model.safetensors", old, new)


def config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: configured(folder, "config.json", change)


def cut(folder: Path, size: int) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(data[:size])


def lengthened(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(data)) + data[8:])


def replaced(folder: Path, name: str, text: str) -> None:
    (folder / name).unlink()
    (folder / name).write_text(text)


def twice(folder: Path) -> None:
    os.link(folder / "model.safetensors", folder / "model-00001.safetensors")


def drop_last(folder: Path) -> None:
    """One tensor less, and everything else right."""
    names = toymodels.target_tensors()
    names.popitem()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(toymodels.safetensors("x", names, 64))


def sharded(folder: Path) -> None:
    index = {"weight_map": dict.fromkeys(toymodels.target_tensors(), "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


VISION = "model.vision_tower.encoder.layers.0.self_attn.q_proj"
EXPERT = "model.language_model.layers.0.experts.0.gate_proj"
TWINS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda f: cut(f, 9_000_000), "its header speaks of"),
    "cut within its header": (lambda f: cut(f, 5000), "its header would be"),
    "empty": (lambda f: cut(f, 0), "its header would be 0 bytes"),
    "header longer than the file": (lengthened, "its header would be"),
    "one tensor less": (drop_last, "47647 tensors, expected 47648"),
    "vision in F16": (
        header(f'{VISION}.weight":{{"dtype":"BF16"', f'{VISION}.weight":{{"dtype": "F16"'),
        "q_proj.weight is F16, expected BF16",
    ),
    "router quantised": (
        header(
            'layers.3.router.proj.weight":{"dtype":"BF16","shape":[2,2]',
            'layers.3.router.proj.weight":{"dtype":"U8",  "shape":[2,4]',
        ),
        "router.proj.weight is U8, expected BF16",
    ),
    "embed_vision gone": (
        header("model.embed_vision.", "model.embed_visiom."),
        "no tensor's name has model.embed_vision.",
    ),
    "ModelOpt names": (
        header(f"{EXPERT}.input_global_scale", f"{EXPERT}.x.____.input_scale"),
        "a name of another quantisation format",
    ),
    "a scale is missing": (
        header(f"{EXPERT}.weight_scale", f"{EXPERT}.weight_scalf"),
        "has weight_packed and no weight_scale",
    ),
    "wrong offsets": (header('"shape":[2,2]', '"shape":[2,3]'), "for BF16 [2, 3]"),
    "unknown type": (header('"dtype":"F32"', '"dtype":"F33"'), "a tensor's entry can't be read"),
    "index of other shards": (sharded, "47648 tensors are in other files than it lists"),
    "end of turn missing": (
        lambda f: configured(f, "generation_config.json", lambda d: d.update(eos_token_id=[1, 106, 50])),
        "eos_token_id is [1, 106, 50], expected",
    ),
    "vision not ignored": (
        config(lambda d: d["quantization_config"].update(ignore=["lm_head", "re:.*embed_vision.*"])),
        "ignore does not cover model.vision_tower.",
    ),
    "no audio_config": (config(lambda d: d.pop("audio_config")), "audio_config is missing"),
    "no num_experts_per_tok": (
        config(lambda d: d["text_config"].pop("num_experts_per_tok")),
        "num_experts_per_tok is missing",
    ),
    "another format": (
        config(lambda d: d["quantization_config"].update(format="nvfp4")),
        "quantization_config.format is nvfp4, expected nvfp4-pack-quantized",
    ),
    "another method": (
        config(lambda d: d["quantization_config"].update(quant_method="modelopt")),
        "quant_method is modelopt, expected compressed-tensors",
    ),
    "another size": (config(lambda d: d["text_config"].update(hidden_size=64)), "hidden_size is 64, expected 2816"),
    "no processor": (lambda f: (f / "processor_config.json").unlink(), "processor_config.json: it is missing"),
    "no preprocessor": (lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json: it is missing"),
    "config is no JSON": (lambda f: swap(f, "config.json", "{", "["), "config.json: it can't be read"),
    "config is no object": (lambda f: replaced(f, "config.json", "[]"), "config.json: found no object"),
    "config of another shape": (
        config(lambda d: d.update(quantization_config=["nvfp4"])),
        "a configuration has another shape",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: it is missing"),
    "a tensor in two shards": (twice, "stands in model-00001.safetensors too"),
    "header is no JSON": (header('{"__metadata__"', '["__metadata__"'), "its header can't be read"),
    "a scale too few of its kind": (header("weight_global_scale", "weight_globel_scale"), "and no weight_global_scale"),
}
DRAFTER_TWINS: dict[str, tuple[Callable[[Path], object], str]] = {
    "hidden size": (
        config(lambda d: d.update(hidden_size=64)),
        "drafter's hidden_size against its target is 64, expected 2816",
    ),
    "layers": (
        config(lambda d: d.update(num_target_layers=28)),
        "drafter's num_target_layers against its target is 28, expected 30",
    ),
    "layer ids": (
        config(lambda d: d["dflash_config"].update(target_layer_ids=[1, 30])),
        "drafter reads target_layer_ids [1, 30], its target has 30 layers",
    ),
    "vocabulary": (
        config(lambda d: d.update(vocab_size=262143)),
        "drafter's vocab_size against its target is 262143, expected 262144",
    ),
    "block size": (config(lambda d: d.update(block_size=8)), "block_size is 8, expected 16"),
    "cut": (lambda f: cut(f, 100_000), "its header speaks of"),
}


def test_the_toys_have_what_the_catalogue_says(store: Path, tmp_path: Path) -> None:
    target, drafter = (twin(store, toy, tmp_path) for toy in (toymodels.TARGET, toymodels.DRAFTER))

    assert len(weights.read_header("model.safetensors", *held(target).headers["model.safetensors"])) == 47_648
    assert problems(target, TARGET) == []
    assert problems(drafter, DRAFTER, target) == []


@pytest.mark.parametrize("name", TWINS)
def test_each_rule_catches_its_broken_twin(store: Path, tmp_path: Path, name: str) -> None:
    spoil, words = TWINS[name]
    folder = twin(store, toymodels.TARGET, tmp_path)
    spoil(folder)

    found = problems(folder, TARGET)

    assert [text for text in found if words in text], found


@pytest.mark.parametrize("name", DRAFTER_TWINS)
def test_a_drafter_must_fit_its_target(store: Path, tmp_path: Path, name: str) -> None:
    spoil, words = DRAFTER_TWINS[name]
    target, drafter = (twin(store, toy, tmp_path) for toy in (toymodels.TARGET, toymodels.DRAFTER))
    spoil(drafter)

    found = problems(drafter, DRAFTER, target)

    assert [text for text in found if words in text], found


def test_a_model_of_which_nothing_is_known_needs_a_whole_file_and_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(toymodels.safetensors("x", toymodels.drafter_tensors(), 256))
    nothing = Expected({"tensor_count": None})
    assert problems(tmp_path, nothing) == []

    cut(tmp_path, 200)
    assert len(problems(tmp_path, nothing)) == 1


def test_a_drafter_of_which_nothing_is_known_is_not_judged() -> None:
    drafter = load((ROOT / "tests" / "lab" / "catalog",)).models["lab-spelling"]
    assert drafter.drafter
    expected = weights.expected_of(drafter, drafter.drafter, "a" * 40)

    assert expected.checks == {}
    assert weights.problems(weights.Contents(frozenset()), expected) == []


def test_only_the_beginning_of_a_shard_is_read(store: Path) -> None:
    folder = store / toymodels.TARGET.repo / toymodels.TARGET.commit
    file = locked(folder / "model.safetensors", "model.safetensors")
    asked: list[int] = []

    def begin(_: LockedFile, size: int) -> bytes:
        asked.append(size)
        return (folder / "model.safetensors").read_bytes()[:size]

    found = contents.read([file], begin)

    length = weights.header_length("model.safetensors", file.size, found.headers["model.safetensors"][1])
    assert asked == [contents.FIRST_BYTES, 8 + length]
    assert asked[-1] < file.size


def test_a_document_of_other_bytes_than_the_lock_has_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    file = locked(tmp_path / "config.json", "config.json")

    with pytest.raises(OSError, match=r"config\.json came with other bytes"):
        contents.read([file], lambda *_: b"[]")


@pytest.mark.parametrize(
    "changed",
    [
        Expected({**TARGET.checks, "hidden_size": 1}),
        Expected({**TARGET.checks, "eos_token_ids": []}),
        Expected(TARGET.checks, ("acme/other", "a" * 40)),
    ],
)
def test_another_question_has_another_key(changed: Expected) -> None:
    assert changed.key != TARGET.key
    assert Expected(dict(reversed(list(TARGET.checks.items())))).key == TARGET.key
