"""Which phase of its start an engine is in, read from its log.

The lines are those of vLLM 0.22 to 0.32. Each tells what comes next or what was just done; the last one counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_MARKS = (
    (
        "weights",
        r"Starting to load model|Loading model from scratch|Loading \w+ checkpoint shards|Loading drafter model"
        r"|Loading weights took",
    ),
    (
        "compile",
        r"Model loading took|Dynamo bytecode|torch\.compile t|for vLLM's torch\.compile|[Cc]ompil\w+ a? ?graph",
    ),
    ("autotune", r"Autotuning process starts|Using FlashInfer autotune"),
    ("graphs", r"KV cache size:|Autotuning process ends|(?:Profiling|Capturing) CUDA graph|Capturing model for"),
    # After the last graph a first start builds the sampler's kernels, for a minute and a half without a line.
    ("warm-up", r"Graph capturing finished|Free memory on device \(.*\) on startup\. Desired"),
    ("server", r"init engine .* took|Multi-modal warmup|Starting vLLM server|Application startup complete"),
)
_PHASES = tuple((name, re.compile(pattern)) for name, pattern in _MARKS)


def phase(lines: Iterable[str]) -> str | None:
    """The phase that a log has come to, or None before the first that is known."""
    found = None
    for line in lines:
        found = next((name for name, pattern in _PHASES if pattern.search(line)), found)
    return found
