"""The lab models hold the properties that the gates' expected figures rest on."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.lab import labmodels
from tests.lab.labmodels import DRAFT_TOKENS, MODELS, WORD, LabModel, files_of

TARGET, DRAFTER, BROKEN = MODELS


def tensors(model: LabModel) -> dict[str, tuple[list[int], bytes]]:
    """Read the weights as any safetensors reader does: a length, a JSON header, the data."""
    data = files_of(model)["model.safetensors"]
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    body = data[8 + length :]
    spans = sorted(entry["data_offsets"] for entry in header.values())
    assert spans[0][0] == 0
    assert spans[-1][1] == len(body)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))
    return {
        name: (entry["shape"], body[slice(*entry["data_offsets"])])
        for name, entry in header.items()
        if entry["dtype"] == "F16"
    }


def next_token(model: LabModel, token: int) -> int:
    """The greedy choice after a token: with silent layers, the head's best row for that embedding."""
    loaded = tensors(model)
    (_, width), embed = loaded["model.embed_tokens.weight"]
    (rows, _), head = loaded["lm_head.weight"]
    state = struct.unpack_from(f"<{width}e", embed, 2 * width * token)

    def logit(row: int) -> float:
        weights = struct.unpack_from(f"<{width}e", head, 2 * width * row)
        return float(sum(a * b for a, b in zip(state, weights, strict=True)))

    scores = [logit(row) for row in range(rows)]
    best = max(scores)
    assert scores.count(best) == 1, "the greedy choice must not be a tie"
    return scores.index(best)


def spell(model: LabModel, start: int, count: int) -> list[int]:
    spelt, token = [], start
    for _ in range(count):
        token = next_token(model, token)
        spelt.append(token)
    return spelt


def ids(text: str) -> list[int]:
    return [labmodels.token_id(byte) for byte in text.encode()]


def test_the_target_spells_the_word_after_any_prompt() -> None:
    for start in (labmodels.SPECIALS.index("<turn|>"), *ids("x\n"), *ids(WORD[-1])):
        assert spell(TARGET, start, 2 * len(WORD)) == ids(WORD * 2)


@pytest.mark.parametrize(
    ("drafter", "rate", "length"), [(DRAFTER, 0.6, 7.0), (BROKEN, 0.0, 1.0)], ids=["good", "broken"]
)
def test_speculation_with_each_drafter_gives_the_documented_figures(
    drafter: LabModel, rate: float, length: float
) -> None:
    token, drafts, accepted = ids("x")[0], 20, 0
    token = next_token(TARGET, token)
    for _ in range(drafts):
        for proposed in spell(drafter, token, DRAFT_TOKENS):
            right = next_token(TARGET, token)
            token = right
            if proposed != right:
                break
            accepted += 1
        else:
            token = next_token(TARGET, token)
    assert accepted / (drafts * DRAFT_TOKENS) == rate
    assert 1 + accepted / drafts == length


def test_every_layer_adds_nothing_to_the_residual_stream() -> None:
    for model in MODELS:
        closing = [
            data for name, (_, data) in tensors(model).items() if name.endswith(("o_proj.weight", "down_proj.weight"))
        ]
        assert len(closing) == 2 * model.layers
        assert not any(any(data) for data in closing)


def test_the_files_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    hashes = []
    for attempt in ("first", "second"):
        out = tmp_path / attempt
        labmodels.write_all(out)
        found = sorted(path for path in out.rglob("*") if path.is_file())
        hashes.append({str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found})
    assert hashes[0] == hashes[1]
    # Pinned, so that a change of the models (and of every commit id made from them) is a decision.
    assert {model.repository: labmodels.commit_of(files_of(model)) for model in MODELS} == {
        "spelling-target": "46aa2b20348a0d4f9a1ca902897602429a7544b9",
        "spelling-drafter": "b5373ffce601e0ab7f543b5996f88d9979f9d968",
        "spelling-drafter-broken": "6fae2edd0a4cd906a8c2fda512955b0bc46747a1",
    }


def test_no_path_makes_vllm_infer_another_method() -> None:
    inferred = ("dflash", "eagle", "dspark", "medusa", "mtp")
    names = [name.lower() for model in MODELS for name in (model.folder, model.repository)]
    assert not [name for name in names if any(word in name for word in inferred)]


def test_the_hub_store_points_main_at_the_commit(tmp_path: Path) -> None:
    commits = labmodels.write_hub_store(tmp_path)
    assert set(commits) == {f"sparkfleet-lab/{model.repository}" for model in MODELS}
    for repo, commit in commits.items():
        assert (tmp_path / repo / "refs" / "main").read_text() == commit
        assert len(commit) == 40
        folder = tmp_path / repo / commit
        assert "lab model" in (folder / "README.md").read_text()
        assert labmodels.commit_of({p.name: p.read_bytes() for p in folder.iterdir()}) == commit


def test_generation_defaults_to_temperature_zero() -> None:
    for model in MODELS:
        assert json.loads(files_of(model)["generation_config.json"])["temperature"] == 0.0


def test_the_vocabulary_has_each_byte_and_the_gemma4_markers_once() -> None:
    tokenizer: dict[str, Any] = json.loads(files_of(TARGET)["tokenizer.json"])
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(len(labmodels.SPECIALS) + 256))
    assert {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"} <= set(vocabulary)
    # The byte-level letters as GPT-2 fixed them: a space is Ġ and a newline is Ċ.
    assert (vocabulary["Ġ"], vocabulary["Ċ"], vocabulary["a"]) == tuple(ids(" \na"))
    assert vocabulary["ÿ"] == ids_of_byte(0xFF)


def ids_of_byte(byte: int) -> int:
    return len(labmodels.SPECIALS) + byte
