"""The catalogue's rows about time and proof: deadlines, floors, margins, and what the watch asks."""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Row(BaseModel):
    """What somebody wrote down: unknown keys are refused, and nothing is changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Floor(Row):
    """The least that one kind of prompt may give; a floor of None only measures."""

    min_acceptance_rate: float | None = Field(default=None, ge=0, le=1)
    min_mean_acceptance_length: float | None = Field(default=None, ge=1)


class AcceptanceGate(Floor):
    """Floors over fixed prompts: rates are fractions of drafted tokens, lengths are tokens per step."""

    max_tokens: int = Field(gt=0)
    prompt_tokens: int | None = None

    @property
    def has_floor(self) -> bool:
        return self.min_acceptance_rate is not None or self.min_mean_acceptance_length is not None


class LineFloors(Row):
    """Floors of a model with its drafter on one image line, and the draft length that the figures were made with."""

    drafted_tokens: int = Field(gt=0)
    short: Floor
    long: Floor
    very_long: Floor
    min_tokens_per_second: float | None = Field(default=None, gt=0)
    source: str


class KvLayers(Row):
    """Layers whose KV cache has one shape; `window` is None where they attend to the whole context."""

    layers: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_size: int = Field(gt=0)
    window: int | None = Field(default=None, gt=0)


class Proof(Row):
    """How well it is known that a row runs, by whom it was seen, and when."""

    level: Literal["maker", "field", "other-gpu", "read"]
    where: str
    date: datetime.date | None = None

    def words(self) -> str:
        """Say it for the plan: «run on a GB10 by its maker (card, 2026-06-11)»."""
        seen = {
            "maker": "run on a GB10 by its maker",
            "field": "run on a GB10 by others than its maker",
            "other-gpu": "run on another GPU, not on a GB10",
            "read": "read from its source alone, not seen to run",
        }
        return f"{seen[self.level]} ({self.where}{f', {self.date}' if self.date else ''})"


class DrafterSupport(Row):
    """What an image line needs of the drafters of one method; `works` and `refused_backends` map to their sources.

    `kv_cache_dtypes` is for drafters that are not causal, by attention backend; one without an entry takes BF16 alone.
    """

    backend: str | None
    works: dict[str, str] = {}
    refused_backends: dict[str, str] = {}
    prefix_caching: Literal["safe", "doubtful", "unsafe"]
    sliding_window: bool = True
    restart_cures_collapse: bool = False
    own_kv_cache_dtype: bool = False
    kv_cache_dtypes: dict[str, list[str]] = {}
    concurrency_limit: int | None = None
    concurrency_note: str = ""


class Loader(Row):
    """What can load a checkpoint: `lines` were seen to; an engine older than `since` was seen not to."""

    since: str
    lines: list[str]
    why: str


class EngineMemory(Row):
    """What the engine takes beside weights and KV cache, fitted to published figures, and how far that may be off.

    `total_bytes` is the pool that the utilization is a share of; None where machines of this kind differ.
    """

    total_bytes: int | None
    fixed_bytes: int
    bytes_per_batched_token: int
    error: float = Field(ge=0, lt=1)


class Throughput(Row):
    """Floors of one stream: tokens per second, and the longest wait for the first token in seconds."""

    min_tokens_per_second: float | None = Field(default=None, gt=0)
    max_ttft_s: float | None = Field(default=None, gt=0)


class Margins(Row):
    """How much worse than the old release a canary may be, as shares of the old figures; null = not judged."""

    max_acceptance_drop: float | None = Field(default=None, gt=0, lt=1)
    max_tokens_per_second_drop: float | None = Field(default=None, gt=0, lt=1)
    max_ttft_rise: float | None = Field(default=None, gt=0)


class AfterLoad(Row):
    """What is left of the host beside the loaded engine, in GiB, and what the GPU draws while it works, in watts.

    A GPU that is busy and stays below both, power and clock (in MHz), is wedged.
    """

    min_available_gib: float | None = Field(default=None, gt=0)
    min_power_w: float | None = Field(default=None, gt=0)
    min_clock_mhz: float | None = Field(default=None, gt=0)


class BurstGate(Row):
    """Requests that the soak asks at once, and the acceptance below which no healthy drafter comes, whoever asks."""

    requests: int = Field(ge=2, le=64)
    max_tokens: int = Field(gt=0)
    min_acceptance_rate: float | None = Field(default=None, ge=0, le=1)


class Gates(Row):
    """What the engine must show before it counts as proven; what the model has no part for is left out."""

    short: AcceptanceGate
    long: AcceptanceGate | None = None
    very_long: AcceptanceGate | None = None
    throughput: Throughput | None = None
    after_load: AfterLoad | None = None
    streaming: bool = False
    reasoning: bool = False
    tool_call: bool = False
    image: bool = False
    gpu: bool = False
    burst: BurstGate | None = None
    # Set by the recipe: the parser of this engine cannot force the call of a tool.
    tool_call_unforced: bool = False
    compare: Margins = Margins()


class Watch(Row):
    """What a host's own minutely look asks of the engine, and how often it may restart it.

    An engine with requests that does nothing for `stalled_s` is stalled when its GPU draws less than the machine's
    `wedged_power_w`, and after `slow_factor` times as long when it draws more or nobody can tell. One that had nothing
    to do for `stalled_s` is asked for a token. A restart is forgotten after `forget_s` without a reason for another.
    """

    min_acceptance_rate: float | None = Field(ge=0, le=1)
    window_drafts: int = Field(gt=0)
    stalled_s: int = Field(gt=0)
    slow_factor: float = Field(ge=1)
    min_available_gib: float = Field(ge=0)
    max_stall_percent: float = Field(ge=0, le=100)
    forget_s: int = Field(gt=0)
    max_restarts: int = Field(ge=0)


class Timing(Row):
    """Deadlines in seconds; a start is late after `history_factor` times the slowest that the host knows."""

    drain_s: int = Field(ge=0)
    shutdown_timeout_s: int = Field(ge=0)
    stop_margin_s: int = Field(ge=0)
    docker_stop_s: int
    unit_stop_s: int
    memory_wait_s: int
    load_deadline_s: int
    history_factor: float = Field(ge=1)
    request_timeout_s: int
    soak_s: int = Field(ge=0)
    soak_interval_s: int = Field(gt=0)


class Limits(Row):
    """What a kind of machine bears: shares of its memory, tokens a step, sequences with a drafter, GPUs, the disk
    space that stays free, and the seconds that a first start takes."""

    memory_utilization: float = Field(gt=0, le=1)
    memory_utilization_advised: float = Field(gt=0, le=1)
    batched_tokens: int | None
    drafter_concurrency: int
    # Above so many sequences a draft longer than so many tokens slows all of them down.
    long_draft: tuple[int, int] | None = None
    gpus: int
    disk_reserve_bytes: int
    cold_start_s: int | None = None


class DriverVerdict(Row):
    """What is known of one version, or of a range of versions, of the driver, the kernel or the toolkit.

    `hardware` are the kinds of machine that it is known of, or all. `reserves_cma` marks a fault that /proc/meminfo
    shows to be switched off where CmaTotal is not zero.
    """

    verdict: Literal["fail", "warn", "info", "pass"]
    why: str
    source: str
    hardware: list[str] = []
    reserves_cma: bool = False
    version: str | None = None
    prefix: str | None = None
    below: str | None = None
    from_: str | None = Field(default=None, alias="from")
