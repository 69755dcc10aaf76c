"""The two repositories of the first workload, at their real commits and with toy contents of a few megabytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.lab.config import FIXTURES

README = """\
# {repo}: a stand-in made by the sparkfleet lab

The configuration has the real model's shape in miniature. The weights are meaningless bytes that follow from the
repository's name; nothing here comes from the real repository and nothing here can generate text.
"""
MIB = 1 << 20


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
    (files / "README.md").write_text(README.format(repo=toy.repo), encoding="utf-8")
    (files / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n", encoding="utf-8")
    if toy.has_tokenizer:
        for name, content in _tokenizer().items():
            (files / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (files / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    (files / "model.safetensors").write_bytes(safetensors(toy.repo, toy.weights_mib * MIB))
    # Last, because the reference says that the repository is complete.
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(toy.commit + "\n")


def safetensors(seed: str, size: int) -> bytes:
    """A file with a valid header and ``size`` bytes of one tensor, always the same for the same seed."""
    header = {
        "__metadata__": {"format": "pt", "note": "sparkfleet lab stand-in"},
        "lab.weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = hashlib.shake_256(seed.encode()).digest(size)
    return struct.pack("<Q", len(text)) + text + data


def _tokenizer() -> dict[str, object]:
    return {
        "tokenizer.json": {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"<unk>": 0}}},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"},
        "special_tokens_map.json": {"unk_token": "<unk>"},
        "preprocessor_config.json": {"processor_class": "Gemma4Processor"},
        "processor_config.json": {"processor_class": "Gemma4Processor"},
    }
