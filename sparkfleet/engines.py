"""The engines by their names in the catalogue."""

from __future__ import annotations

from sparkfleet.engine import Engine
from sparkfleet.engine_sglang import SGLANG
from sparkfleet.engine_vllm import VLLM

ENGINES: dict[str, Engine] = {engine.kind: engine for engine in (VLLM, SGLANG)}
