"""What is true of each image tag, as its publisher and vLLM's sources state it.

Acceptance figures: the model card's "Validated results" (43.3 % at about 9,000 tokens, 60 % on short prompts in
production) and, for the tag before the drafter fixes, its 34–56 % on short and 0–7 % on prompts over 2,000 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tag:
    name: str
    vllm: str
    base: str
    fixes: str
    drafter_fixed: bool = True
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.vllm.split("."))

    @property
    def recorded_contract(self) -> str:
        """The recorded command line of the nearest version: flags and variables changed at 0.24."""
        return "0.22.1" if self.version < (0, 24) else "0.32.0"


# AEON's own 0.25 and 0.26 images carry the older model runner and pin it.
_PINNED_RUNNER = {"VLLM_USE_V2_MODEL_RUNNER": "0"}

TAGS = {
    tag.name: tag
    for tag in (
        Tag("2026-06-04-pr44389", "0.22.1", "vllm 0.22.1", "pr44389", drafter_fixed=False),
        Tag("2026-06-11-pr41703", "0.22.1", "vllm 0.22.1 + pr44389", "pr41703+pr40898"),
        Tag("2026-06-18-v0.23.0-dflashfix", "0.23.0", "vllm 0.23.0", "pr41703+pr40898+dflashfix"),
        Tag("2026-07-01-v0.24.0", "0.24.0", "vllm 0.24.0", "pr41703+pr40898"),
        Tag("2026-07-08-v0.24.0-maxsafe", "0.24.0", "vllm 0.24.0", "pr41703+pr40898+maxsafe"),
        Tag("2026-07-14-v0.25.0", "0.25.0", "vllm 0.25.0", "pr41703", environment=_PINNED_RUNNER),
        Tag("2026-07-16-v0.25.1", "0.25.1", "vllm 0.25.1", "pr41703", environment=_PINNED_RUNNER),
        Tag("2026-07-27-v0.26.0", "0.26.0", "vllm 0.26.0", "pr41703", environment=_PINNED_RUNNER),
        Tag("2026-08-16-v0.27.1", "0.27.1", "vllm 0.27.1", "pr41703"),
        Tag("2026-08-17-v0.27.1-slim", "0.27.1", "vllm 0.27.1 slim", "pr41703"),
        Tag("2026-09-11-v0.29.0-omni", "0.29.0", "vllm 0.29.0 omni", "pr41703"),
    )
}
LATEST = "2026-08-17-v0.27.1-slim"
DEFAULT = "2026-06-11-pr41703"
