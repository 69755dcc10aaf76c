"""The golden files: what each combination of the catalogue runs, one flag a line, and where the model card differs.

python -m tests.unit.controller.golden      writes them anew, for a review of the difference
"""

from __future__ import annotations

from pathlib import Path

from sparkfleet.errors import FleetError
from sparkfleet.release import Compiled
from sparkfleet.rules import rule_texts
from tests.unit.controller.combos import CURRENT, MODEL, every

FOLDER = Path(__file__).resolve().parents[2] / "golden"
REFUSED = "refused.txt"
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
    """The golden file of one combination."""
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
    rendered = units(compiled.release["argv"])
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


def files() -> dict[str, str]:
    """Every golden file's name and text, as the code renders it now."""
    texts, refused = {}, []
    for names, outcome in every().items():
        if isinstance(outcome, FleetError):
            refused.append(f"{'--'.join(names)}: {', '.join(_rules_in(outcome))}")
        else:
            texts[f"{'--'.join(names)}.txt"] = text(names, outcome)
    head = "# Combinations that are refused, and the rules that refuse them."
    return {**texts, REFUSED: "\n".join([head, *refused]) + "\n"}


def _rules_in(error: FleetError) -> list[str]:
    starts = [line.partition(":")[0] for line in error.text().splitlines()]
    return sorted({start for start in starts if start in rule_texts()})


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    now = files()
    for path in FOLDER.glob("*.txt"):
        if path.name not in now:
            path.unlink()
    for name, content in now.items():
        (FOLDER / name).write_text(content, encoding="utf-8")
    print(f"wrote {len(now)} files to {FOLDER}")


if __name__ == "__main__":
    main()
