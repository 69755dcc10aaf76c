"""The prompts of the gates. They are fixed, so that figures of two releases and of two hosts can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable

CHAT = "Name three colours of the rainbow and say in one sentence why the sky is blue."

REASONING = "A farmer has 17 sheep and all but 9 run away. How many are left? Think first, then answer."
TOOL = "What is the weather in Lisbon right now? Use the tool."
TOOL_AGAIN = "Call the tool get_weather for the city of Lisbon now. Do not answer in text."
IMAGE = "Which colour does this square have? Answer with one word."

CODING = (
    "Write a Python function `merge_intervals(intervals)` that merges overlapping closed intervals given as a list of "
    "tuples and returns them sorted. Answer with the code only.",
    "Write a Python class `LruCache` with the methods `get(key)` and `put(key, value)` that run in constant time and "
    "drop the entry that was used least recently. Answer with the code only.",
    "Write a Go function that reads lines from an io.Reader, counts how often each word occurs and returns the ten "
    "most frequent words in order. Answer with the code only.",
)

_BURST = (
    "Write a Python function `{0}_{1}` that sorts a list of {2} records by their `{0}` and returns the first {1}.",
    "Explain in {1} sentences why a {0} of {2} entries is kept in memory, and name one reason against it.",
    "List {1} test cases for a parser of {0} files with {2} lines, one a line.",
    "Rewrite this as JSON: {0}={2}; width={1}; tags=alpha,beta,{0}.",
)
_BURST_WORDS = ("price", "index", "header", "queue", "token", "ledger", "window", "matrix")

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


def burst_prompts(count: int) -> list[str]:
    """So many prompts of different kinds and lengths, no two of them alike."""
    found = []
    for number in range(count):
        task = _BURST[number % len(_BURST)].format(
            _BURST_WORDS[number % len(_BURST_WORDS)], number + 3, 10 * number + 7
        )
        context = "".join(_block(block) for block in range(number % 4 * 4))
        found.append(f"{context}{task}")
    return found


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
