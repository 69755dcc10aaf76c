"""The prompts of the gates. They are fixed, so that figures of two releases and of two hosts can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable

CHAT = "Name three colours of the rainbow and say in one sentence why the sky is blue."

REASONING = "A farmer has 17 sheep and all but 9 run away. How many are left? Think first, then answer."
TOOL = "What is the weather in Lisbon right now? Use the tool."
IMAGE = "Which colour does this square have? Answer with one word."

CODING = (
    "Write a Python function `merge_intervals(intervals)` that merges overlapping closed intervals given as a list of "
    "tuples and returns them sorted. Answer with the code only.",
    "Write a Python class `LruCache` with the methods `get(key)` and `put(key, value)` that run in constant time and "
    "drop the entry that was used least recently. Answer with the code only.",
    "Write a Go function that reads lines from an io.Reader, counts how often each word occurs and returns the ten "
    "most frequent words in order. Answer with the code only.",
)

_LONG_TASK = "\n\nThe file above is one module. Write pytest tests for its first three functions. Code only."
# Code comes to some three characters a token; four make the text rather too long than too short.
_CHARACTERS_PER_TOKEN = 4


def _block(number: int) -> str:
    return (
        f"def window_{number}(values: list[float], width: int = {number % 7 + 2}) -> list[float]:\n"
        f'    """Return the sliding mean number {number} over `width` neighbouring values."""\n'
        f"    if width <= 0 or len(values) < width:\n"
        f'        raise ValueError("width {number} does not fit")\n'
        f"    total = sum(values[:width])\n"
        f"    means = [total / width]\n"
        f"    for left, right in zip(values, values[width:]):\n"
        f"        total += right - left\n"
        f"        means.append(total / width)\n"
        f"    return means\n\n"
    )


def long_prompt(tokens: int, count: Callable[[str], int | None]) -> str:
    """A coding prompt of at least so many tokens; `count` asks the engine's own tokenizer, which may not answer."""
    blocks = [_block(number) for number in range(tokens * _CHARACTERS_PER_TOKEN // len(_block(0)) + 1)]
    text = "".join(blocks) + _LONG_TASK
    measured = count(text)
    if measured:
        # Some tokenizers make five times as many tokens of a text as others; the model's length has an end.
        wanted = math.ceil(len(blocks) * tokens / measured * 1.05) + 1
        text = "".join(_block(number) for number in range(wanted)) + _LONG_TASK
    return text
