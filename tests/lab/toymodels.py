"""The two repositories of the first workload, at their real commits: the real names and number of tensors, and toy
contents of a few megabytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.config import FIXTURES

README = """\
# {repo}: a stand-in made by the sparkfleet lab

The configuration has the real model's shape in miniature. The weights are meaningless bytes that follow from the
repository's name; nothing here comes from the real repository and nothing here can generate text.
"""
MIB = 1 << 20
HIDDEN, LAYERS, EXPERTS = 2816, 30, 128


@dataclass(frozen=True)
class Toy:
    repo: str
    commit: str
    fixture: str
    weights_mib: int
    has_tokenizer: bool


TARGET = Toy(
    "AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4", "1d7e8dbc4456fedeacd12e5308c7d43fd489dfa6", "target", 6, True
)
DRAFTER = Toy("z-lab/gemma-4-26B-A4B-it-DFlash", "77d4202772dfe50b2396ec7bac9cfffc7b9e7057", "drafter", 3, False)


def write(store: Path) -> None:
    """Put both into a store of the Hub stand-in, unless they are there."""
    for toy in (TARGET, DRAFTER):
        folder = store / toy.repo
        if not (folder / "refs" / "main").exists():
            _write(toy, folder)


def _write(toy: Toy, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    files = folder / toy.commit
    files.mkdir(parents=True)
    for fixture in (FIXTURES / "models" / toy.fixture).iterdir():
        shutil.copy(fixture, files / fixture.name)
    (files / "config.json").write_text(json.dumps(config(toy), indent=2) + "\n", encoding="utf-8")
    (files / "README.md").write_text(README.format(repo=toy.repo), encoding="utf-8")
    (files / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n", encoding="utf-8")
    if toy.has_tokenizer:
        for name, content in _tokenizer().items():
            (files / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (files / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    names = target_tensors() if toy is TARGET else drafter_tensors()
    (files / "model.safetensors").write_bytes(safetensors(toy.repo, names, toy.weights_mib * MIB))
    # Last, because the reference says that the repository is complete.
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(toy.commit + "\n")


def config(toy: Toy) -> dict[str, Any]:
    """The fixture, with the sizes that the catalogue says of the real one."""
    document: dict[str, Any] = json.loads((FIXTURES / "models" / toy.fixture / "config.json").read_text())
    document.get("text_config", document)["hidden_size"] = HIDDEN
    return document


def target_tensors() -> dict[str, str]:
    """The names and types of the 47,648 tensors of the real target: 128 experts in each of 30 layers."""
    names: dict[str, str] = {}

    def packed(module: str) -> None:
        for suffix, kind in (("weight_packed", "U8"), ("weight_scale", "F8_E4M3")):
            names[f"{module}.{suffix}"] = kind
        for suffix in ("weight_global_scale", "input_global_scale"):
            names[f"{module}.{suffix}"] = "F32"

    def plain(prefix: str, *rest: str) -> None:
        names.update({f"{prefix}{name}": "BF16" for name in rest})

    plain("model.language_model.", "embed_tokens.weight", "norm.weight")
    norms = [f"{name}_layernorm" for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")]
    norms += ["pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2"]
    for number in range(LAYERS):
        layer = f"model.language_model.layers.{number}."
        # Every sixth layer attends to everything, and there the keys are the values.
        attention = ("q_proj", "k_proj", "o_proj") if number % 6 == 5 else ("q_proj", "k_proj", "v_proj", "o_proj")
        for name in attention:
            packed(f"{layer}self_attn.{name}")
        for name in ("gate_proj", "up_proj", "down_proj"):
            packed(f"{layer}mlp.{name}")
            for expert in range(EXPERTS):
                packed(f"{layer}experts.{expert}.{name}")
        plain(layer, *(f"{name}.weight" for name in norms), "layer_scalar")
        plain(layer, "self_attn.q_norm.weight", "self_attn.k_norm.weight")
        plain(layer, "router.proj.weight", "router.scale", "router.per_expert_scale")
    plain("model.embed_vision.", "embedding_projection.weight")
    plain("model.vision_tower.", "patch_embedder.input_proj.weight", "patch_embedder.position_embedding_table")
    plain("model.vision_tower.", "std_bias", "std_scale")
    for number in range(27):
        layer = f"model.vision_tower.encoder.layers.{number}."
        plain(layer, *(f"self_attn.{name}_proj.weight" for name in "qkvo"), "self_attn.q_norm.weight")
        plain(layer, "self_attn.k_norm.weight", *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")))
        plain(layer, *(f"{name}.weight" for name in norms[:4]))
    return names


def drafter_tensors() -> dict[str, str]:
    return {"embed_tokens.weight": "BF16", "fc.weight": "BF16", "norm.weight": "BF16"}


def safetensors(seed: str, names: dict[str, str], size: int) -> bytes:
    """A file with these tensors, the first of ``size`` bytes and the others tiny; always the same for the same seed."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "note": "sparkfleet lab stand-in"}}
    end = 0
    for name, kind in names.items():
        width = {"BF16": 2, "F32": 4}.get(kind, 1)
        shape = [size // width // 64, 64] if end == 0 else [2, 2] if name.endswith("proj.weight") else [1]
        start, end = end, end + width * shape[0] * (shape[1] if len(shape) == 2 else 1)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + hashlib.shake_256(seed.encode()).digest(end)


def _tokenizer() -> dict[str, object]:
    return {
        "tokenizer.json": {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"<unk>": 0}}},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"},
        "special_tokens_map.json": {"unk_token": "<unk>"},
        "preprocessor_config.json": {"processor_class": "Gemma4Processor"},
        "processor_config.json": {"processor_class": "Gemma4Processor"},
    }
