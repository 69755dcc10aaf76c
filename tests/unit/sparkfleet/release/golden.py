"""The golden files: what each combination of the catalogue runs, one flag a line, and where the model card differs.

One file an image tag, with a section for each profile and model; a refused combination names the rules that refuse it.

python -m tests.unit.sparkfleet.release.golden      writes them again, for a review of the difference
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from sparkfleet.errors import FleetError
from sparkfleet.release.release import Compiled
from sparkfleet.release.rules import rule_texts
from tests.unit.sparkfleet.release.combos import CURRENT, MODEL, every

FOLDER = Path(__file__).resolve().parents[3] / "golden"
COMMAND = "python -m tests.unit.sparkfleet.release.golden"
# A tag's sections by name: "profile, model".
Sections = dict[str, str]
_HEADING = re.compile(r"^=== (.*)\n", re.MULTILINE)
# What a failure shows of a difference; the whole of it is in `git diff` after the command.
SHOWN_SECTIONS = 5
SHOWN_LINES = 12
DEFAULT = ("agentic", CURRENT, MODEL)
SGLANG = ("sglang-baseline", "lmsysorg-sglang", MODEL)

# Said of every combination: these rules are about the inventory and the lock.
OF_THE_FLEET = ("exposure", "terms", "image-digest")

# The model card's own commands, a unit (an option with its values, or a word) a line.
CARD_VLLM = """\
docker run
--gpus all
--ipc host
--network host
-e VLLM_ALLOW_LONG_MAX_MODEL_LEN=1
-e TORCH_MATMUL_PRECISION=high
-e PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
-e VLLM_USE_FLASHINFER_MOE_FP4=0
-e VLLM_TEST_FORCE_FP8_MARLIN=0
-e VLLM_NVFP4_GEMM_BACKEND=flashinfer-cutlass
-e VLLM_USE_FLASHINFER_SAMPLER=1
-v $PWD/models/gemma4:/models/gemma4:ro
-v $PWD/models/gemma4-dflash:/models/gemma4-dflash:ro
--entrypoint vllm
ghcr.io/aeon-7/aeon-vllm-ultimate:latest
serve /models/gemma4
--served-model-name gemma4-aeon-uncensored gemma4-fast gemma4-deep
--host 0.0.0.0
--port 8000
--tensor-parallel-size 1
--dtype auto
--quantization compressed-tensors
--attention-backend triton_attn
--max-model-len 262144
--max-num-seqs 64
--max-num-batched-tokens 32768
--gpu-memory-utilization 0.80
--enable-chunked-prefill
--enable-prefix-caching
--trust-remote-code
--enable-auto-tool-choice
--tool-call-parser gemma4
--reasoning-parser gemma4
--speculative-config {"method":"dflash","model":"/models/gemma4-dflash","num_speculative_tokens":10,\
"attention_backend":"flash_attn"}
"""
CARD_SGLANG = """\
docker run
--gpus all
--shm-size 32g
-p 30000:30000
-v ~/.cache/huggingface:/root/.cache/huggingface
--env HF_TOKEN=<secret>
--ipc host
lmsysorg/sglang:latest
python3 -m sglang.launch_server
--model-path AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4
--host 0.0.0.0
--port 30000
"""
# Why a unit differs, by how it starts. A difference without a reason fails the test.
REASONS = {
    "--rm": "systemd owns the container's life; a stopped container must not block the next start by its name",
    "--init": "an init as PID 1 reaps workers and passes signals on; without one, no stop ended some engines",
    "--name": "stop, drift and identity checks find the container by this name",
    "--log-driver": "the local driver rotates; the default one fills the disk of a machine that runs for months",
    "--network": "the node's gates and clients use the host's port; with it, -p is not needed",
    "-p": "--network host publishes the port",
    "-e VLLM_ENGINE_READY_TIMEOUT_S": "vLLM's own limit of 600 s ends every cold first start on a GB10",
    "-v $PWD/models": "the card's folder in the working directory",
    "-v /var/lib/sparkfleet/models": "weights are kept by repository and commit, so that two releases do not mix",
    "-v /var/lib/sparkfleet/cache": "compiled kernels survive a restart, kept apart by image (2 minutes instead of 13)",
    "-v ~/.cache/huggingface": "weights are synced and proven before the start; the engine downloads nothing",
    "--env HF_TOKEN": "no secret on a command line; the controller downloads",
    "ghcr.io/aeon-7/aeon-vllm-ultimate": "a tag that does not move; locked, the digest takes its place",
    "--shutdown-timeout": "without it, requests in flight are aborted when the engine is stopped",
    "--entrypoint python3": "the same program, written as the entrypoint so that an image's own cannot interfere",
    "python3 -m": "the same program; here it is the image's command",
    "-m sglang.launch_server": "the same program",
    "--model-path": "the synced folder in the container instead of a name that is downloaded",
    "--served-model-name": "clients ask for the model by this name; without it the name would be the folder",
    "--mem-fraction-static": "unified memory must be bounded, as for vLLM; the card leaves it to the engine",
}


def units(argv: list[str]) -> list[str]:
    """Join each option with its values; words without an option stand with the one before the image, or alone."""
    joined: list[str] = []
    values = 0
    for word in argv:
        starts = word.startswith("-") and not word[1:2].isdigit()
        if starts:
            joined.append(word)
            values = 99 if word == "--served-model-name" else 1
        elif joined and values:
            joined[-1] += f" {word}"
            values -= 1
        elif joined and joined[-1] in ("docker", "serve"):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def text(names: tuple[str, str, str], compiled: Compiled) -> str:
    """The section of a combination that works."""
    profile, image, model = names
    recipe = compiled.recipe
    head = [f"profile {profile}, image {image}, model {model}, on gb10: {recipe.contract}"]
    head += compiled.remarks()
    head += [
        f"{finding.severity}: {finding.id}: {finding.found}"
        for finding in compiled.findings
        if finding.id not in OF_THE_FLEET
    ]
    card = {DEFAULT: CARD_VLLM, SGLANG: CARD_SGLANG}.get(names)
    rendered = units(compiled.argv)
    if card is not None:
        head += ["", "Differences from the model card's own command, and why:", *differences(rendered, card)]
    lines = [f"# {line}".rstrip() for line in head]
    return "\n".join([*lines, "", *rendered]) + "\n"


def differences(rendered: list[str], card: str) -> list[str]:
    """What stands only here (+) and only on the card (-), each with its reason."""
    theirs = card.splitlines()
    ours = [("+", unit) for unit in rendered if unit not in theirs]
    missing = [("-", unit) for unit in theirs if unit not in rendered]
    return [f"{sign} {unit}\n#     {_reason(unit)}" for sign, unit in ours + missing]


def _reason(unit: str) -> str:
    for start, reason in REASONS.items():
        if unit.startswith(start):
            return reason
    raise AssertionError(f"the difference '{unit}' from the card has no reason; add it to REASONS")


def rendered_now() -> dict[str, Sections]:
    """Every tag's sections, as the code renders them now."""
    tags: dict[str, Sections] = {}
    for names, outcome in every().items():
        profile, tag, model = names
        if isinstance(outcome, FleetError):
            content = f"refused: {', '.join(_rules_in(outcome))}\n"
        else:
            content = text(names, outcome)
        tags.setdefault(tag, {})[f"{profile}, {model}"] = content
    return tags


def written() -> dict[str, Sections]:
    """Every tag's sections, as they stand in the golden files."""
    return {path.stem: parsed(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.txt")}


def joined(sections: Sections) -> str:
    return "\n".join(f"=== {name}\n{content}" for name, content in sections.items())


def parsed(content: str) -> Sections:
    """Split a golden file at its headings; the inverse of `joined`."""
    head, *rest = _HEADING.split(content)
    assert not head, f"a golden file begins with a heading, and this one with {head[:40]!r}"
    bodies = [body.rstrip("\n") + "\n" for body in rest[1::2]]
    return dict(zip(rest[0::2], bodies, strict=True))


def changes(before: dict[str, Sections], now: dict[str, Sections]) -> list[str]:
    """Tag, section and a short diff, for each section that differs."""
    found = []
    for tag in sorted({*before, *now}):
        old, new = before.get(tag, {}), now.get(tag, {})
        for name in dict.fromkeys([*new, *old]):
            if old.get(name) != new.get(name):
                lines = list(_diff(old.get(name, ""), new.get(name, "")))
                more = [f"… {len(lines) - SHOWN_LINES} more lines"] if len(lines) > SHOWN_LINES else []
                found.append("\n  ".join([f"{tag}: {name}", *lines[:SHOWN_LINES], *more]))
    return found


def _diff(old: str, new: str) -> Iterator[str]:
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            yield line


def report(found: list[str]) -> str:
    """What a failed comparison prints."""
    more = [f"… {len(found) - SHOWN_SECTIONS} more sections"] if len(found) > SHOWN_SECTIONS else []
    head = f"{len(found)} sections differ; run {COMMAND} and review the difference:"
    return "\n".join([head, *found[:SHOWN_SECTIONS], *more])


def _rules_in(error: FleetError) -> list[str]:
    starts = [line.partition(":")[0] for line in error.text().splitlines()]
    return sorted({start for start in starts if start in rule_texts()})


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    now = rendered_now()
    for path in FOLDER.glob("*.txt"):
        if path.stem not in now:
            path.unlink()
    for tag, sections in now.items():
        (FOLDER / f"{tag}.txt").write_text(joined(sections), encoding="utf-8")
    print(f"wrote {sum(map(len, now.values()))} sections of {len(now)} tags to {FOLDER}")


if __name__ == "__main__":
    main()
