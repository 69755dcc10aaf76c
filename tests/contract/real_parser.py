"""Asks real vLLM parsers about command lines, from the project's own environment.

The parser layer needs nothing but the arguments. The deep layer reads model folders: here the configurations
under tests/fixtures/models, which are real in shape and small in size, with the tokenizer of the lab's models
because the gemma4 reasoning parser looks up its markers.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contract.venv import HERE, ensure, quiet_environment
from tests.lab import labmodels

FIXTURES = HERE.parent / "fixtures" / "models"
# The first deep case of a version inspects each model class in a process of its own, some 12 s each.
TIMEOUT_S = 300


@dataclass(frozen=True)
class Result:
    """What one vLLM made of one command line; `layer` names the check that refused it."""

    ok: bool
    layer: str | None
    error: str | None
    resolved: dict[str, Any] = field(default_factory=dict)


def check(version: str, argv_list: Sequence[Sequence[str]], deep: bool) -> list[Result]:
    """Ask vLLM VERSION about each argument list (what follows `vllm serve`), in one process.

    In a deep check the first argument is read as the target and the speculative config's "model" as the
    drafter, whatever their container paths are.
    """
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        questions = [
            {
                "argv": list(argv),
                "deep": deep,
                "model_dirs": _model_dirs(Path(folder), version, argv) if deep else {},
            }
            for argv in argv_list
        ]
        return ask(version, questions)


def ask(version: str, questions: Sequence[dict[str, Any]]) -> list[Result]:
    """Put questions of `parse_server.py` to vLLM VERSION, all to one process: its start is the slowest part."""
    done = subprocess.run(
        [str(ensure(version)), str(HERE / "parse_server.py")],
        input="".join(f"{json.dumps({'id': number, **question})}\n" for number, question in enumerate(questions)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=quiet_environment(version),
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or [answer["id"] for answer in answers] != list(range(len(questions))):
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise RuntimeError(
            f"vLLM {version} answered {len(answers)} of {len(questions)} questions and ended with "
            f"{done.returncode}; its last words:\n{tail}"
        )
    return [Result(answer["ok"], answer["layer"], answer["error"], answer["resolved"]) for answer in answers]


def _model_dirs(root: Path, version: str, argv: Sequence[str]) -> dict[str, str]:
    """A folder for each container path, under the same path below ROOT: vLLM reads meaning from the path."""
    wanted = {argv[0]: _target_files()} if argv and not argv[0].startswith("-") else {}
    drafter = _drafter_path(argv)
    if drafter is not None:
        wanted[drafter] = _drafter_files(version)
    folders = {}
    for container_path, files in wanted.items():
        folder = root / container_path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        folders[container_path] = os.fspath(folder)
    return folders


def _drafter_path(argv: Sequence[str]) -> str | None:
    arguments = list(argv)
    for flag in ("--speculative-config", "-sc"):
        if flag in arguments[:-1]:
            try:
                value = json.loads(arguments[arguments.index(flag) + 1])
            except ValueError:
                return None
            model = value.get("model") if isinstance(value, dict) else None
            return model if isinstance(model, str) else None
    return None


def _target_files() -> dict[str, bytes]:
    config = json.loads((FIXTURES / "target" / "config.json").read_text())
    # The multimodal class cannot be inspected here: its processor needs torchvision, of which there is no
    # CPU build beside this torch. The text half carries everything that these checks look at.
    text = {
        **config["text_config"],
        "architectures": ["Gemma4ForCausalLM"],
        "quantization_config": config["quantization_config"],
    }
    tokenizer = {
        name: data for name, data in labmodels.files_of(labmodels.MODELS[0]).items() if name.startswith("tokenizer")
    }
    return {"config.json": json.dumps(text).encode(), **tokenizer}


def _drafter_files(version: str) -> dict[str, bytes]:
    config = json.loads((FIXTURES / "drafter" / "config.json").read_text())
    if version != "0.22.1":
        # Later versions insist on the V2 model runner for mixed layers, and that needs Triton (a GPU).
        config.update(
            layer_types=["full_attention"] * config["num_hidden_layers"],
            use_sliding_window=False,
            sliding_window=None,
        )
    return {"config.json": json.dumps(config).encode()}
