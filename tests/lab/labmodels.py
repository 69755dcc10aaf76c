"""Tiny models with known answers, for real vLLM on a CPU.

The target is a Llama whose layers add nothing to the residual stream, so the next token depends on the last
one alone: it spells WORD over and over. A drafter of the same make errs on exactly one step of that cycle,
so every draft of 10 tokens has its first 6 accepted: acceptance 60.0 %, mean acceptance length 7.00. The
broken drafter errs on every step: 0.0 % and 1.00. In general the length is len(WORD) and the rate
(len(WORD) - 1) / 10, whatever the prompt, because any other token leads to the first letter.

vLLM takes the speculation method from a drafter path that contains "dflash", so no name here does.

Only the standard library writes these files, and every byte of them follows from this module: the same
module gives the same hashes on every machine, whichever versions of the usual libraries are about.

    python -m tests.lab.labmodels OUT       writes OUT/target, OUT/draft-model and OUT/draft-model-broken
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORD = "ready. "
DRAFT_TOKENS = 10
ORGANISATION = "sparkfleet-lab"
HIDDEN, HEADS, INTERMEDIATE = 64, 2, 128
CONTEXT = 262144
# The markers that the gemma4 reasoning and tool parsers look up in the vocabulary.
SPECIALS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<|turn>",
    "<turn|>",
    "<|channel>",
    "<channel|>",
    "<|think|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
    "<|tool>",
    "<tool|>",
)
VOCABULARY = -(-(len(SPECIALS) + 256) // 64) * 64
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}<|turn>{{ message['role'] }}\n{{ message['content'] }}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)


@dataclass(frozen=True)
class LabModel:
    """One model: its folder and repository names, its depth, and the steps of the cycle it gets wrong."""

    folder: str
    repository: str
    layers: int
    wrong_steps: frozenset[int]
    about: str


_LAST = len(WORD) - 1
MODELS = (
    LabModel(
        "target",
        "spelling-target",
        2,
        frozenset(),
        f'It answers every prompt with "{WORD}" over and over, and never ends by itself.',
    ),
    LabModel(
        "draft-model",
        "spelling-drafter",
        1,
        frozenset({_LAST}),
        f"It drafts for {ORGANISATION}/spelling-target and errs on one of {len(WORD)} steps: with "
        f"{DRAFT_TOKENS} speculative tokens {_LAST / DRAFT_TOKENS:.1%} of the draft is accepted, at a mean "
        f"acceptance length of {len(WORD):.2f}.",
    ),
    LabModel(
        "draft-model-broken",
        "spelling-drafter-broken",
        1,
        frozenset(range(len(WORD))),
        f"It drafts for {ORGANISATION}/spelling-target and errs on every step: nothing of its draft is "
        "accepted (0.0 %, mean acceptance length 1.00), while the target's answers stay right.",
    ),
)


def write_all(out: Path) -> None:
    """Write each model into its own folder under OUT."""
    for model in MODELS:
        _write(out / model.folder, files_of(model))


def write_hub_store(store: Path) -> dict[str, str]:
    """Write each model as STORE/ORG/REPO/COMMIT/… with refs/main naming the commit; repo -> commit."""
    commits = {}
    for model in MODELS:
        files = files_of(model)
        commit = commit_of(files)
        repository = store / ORGANISATION / model.repository
        _write(repository / commit, files)
        _write(repository / "refs", {"main": commit.encode()})
        commits[f"{ORGANISATION}/{model.repository}"] = commit
    return commits


def commit_of(files: dict[str, bytes]) -> str:
    """A commit id that follows from the names and contents of the files."""
    listing = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    return hashlib.sha256(listing.encode()).hexdigest()[:40]


def files_of(model: LabModel) -> dict[str, bytes]:
    """Every file of the model's repository, by name."""
    return {
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": _readme(model),
        "config.json": _json(_config(model)),
        "generation_config.json": _json(_generation_config()),
        "model.safetensors": _safetensors(_weights(model)),
        "tokenizer.json": _json(_tokenizer()),
        "tokenizer_config.json": _json(_tokenizer_config()),
    }


def token_id(byte: int) -> int:
    """The token that stands for one byte of text."""
    return len(SPECIALS) + byte


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _readme(model: LabModel) -> bytes:
    return (
        f"---\nlicense: apache-2.0\n---\n# {ORGANISATION}/{model.repository}\n\n"
        "A lab model: made by a program to test a fleet's tooling, untrained and of no other use.\n\n"
        f"{model.about}\n"
    ).encode()


def _config(model: LabModel) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": model.layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HIDDEN // HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-06,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **_special_ids(),
    }


def _generation_config() -> dict[str, Any]:
    # With speculation, vLLM's CPU sampler is only right at temperature 0 (seen on 0.32.0).
    return {"do_sample": False, "temperature": 0.0, **_special_ids()}


def _special_ids() -> dict[str, int]:
    return {f"{name}_token_id": SPECIALS.index(f"<{name}>") for name in ("bos", "eos", "pad")}


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }


def _tokenizer() -> dict[str, Any]:
    """A byte-level BPE without merges: each byte of text is one token."""
    letters = {letter: token_id(byte) for byte, letter in enumerate(_byte_letters())}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, content in enumerate(SPECIALS)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {**{content: number for number, content in enumerate(SPECIALS)}, **letters},
            "merges": [],
        },
    }


def _byte_letters() -> list[str]:
    """How a byte-level vocabulary writes each byte: as itself, or from U+0100 on if not printable."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters, substitute = [], 0x100
    for byte in range(256):
        if byte in printable:
            letters.append(chr(byte))
        else:
            letters.append(chr(substitute))
            substitute += 1
    return letters


class _Matrix:
    """A half-precision tensor, all zero until told otherwise."""

    def __init__(self, *shape: int, fill: float = 0.0) -> None:
        self.shape = shape
        count = 1
        for length in shape:
            count *= length
        self.data = bytearray(struct.pack("<e", fill) * count)

    def put(self, row: int, column: int, value: float) -> None:
        struct.pack_into("<e", self.data, 2 * (row * self.shape[1] + column), value)


def _weights(model: LabModel) -> dict[str, _Matrix]:
    cycle = [token_id(byte) for byte in WORD.encode()]
    if len(set(cycle)) != len(cycle):
        raise ValueError(f"WORD must not repeat a letter, or the last token would not tell the next: {WORD!r}")
    embed, head = _Matrix(VOCABULARY, HIDDEN), _Matrix(VOCABULARY, HIDDEN)
    for token in range(VOCABULARY):
        # A token outside the cycle counts as its last letter, so every answer starts at the first one.
        embed.put(token, cycle.index(token) if token in cycle else _LAST, 1.0)
    for step in range(len(cycle)):
        right = cycle[(step + 1) % len(cycle)]
        head.put(right + (step in model.wrong_steps), step, 4.0)
    weights = {
        "model.embed_tokens.weight": embed,
        "lm_head.weight": head,
        "model.norm.weight": _Matrix(HIDDEN, fill=1.0),
    }
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{prefix}.self_attn.{name}.weight"] = _Matrix(HIDDEN, HIDDEN)
        for name in ("gate_proj", "up_proj"):
            weights[f"{prefix}.mlp.{name}.weight"] = _Matrix(INTERMEDIATE, HIDDEN)
        weights[f"{prefix}.mlp.down_proj.weight"] = _Matrix(HIDDEN, INTERMEDIATE)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{name}.weight"] = _Matrix(HIDDEN, fill=1.0)
    return weights


def _safetensors(weights: dict[str, _Matrix]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, matrix in sorted(weights.items()):
        end = len(body) + len(matrix.data)
        header[name] = {"dtype": "F16", "shape": list(matrix.shape), "data_offsets": [len(body), end]}
        body += matrix.data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.lab.labmodels OUT")
    write_all(Path(sys.argv[1]))
