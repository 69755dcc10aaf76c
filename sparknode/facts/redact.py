"""What a bundle is without: what names a machine or opens a door. Pure, and linear in time for any text.

A journal line is up to 48 kB of what a client sent, so no pattern here looks further than a bound before it knows that
it is right, and none begins in the middle of a run that it has just looked at.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_GAP = r"[ \t]{0,100}"
_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE | re.ASCII)
NO_UUID = "00000000-0000-0000-0000-000000000000"
_UNIQUE = r"(?:serial|uuid|guid|pdi|wwid|wwn|(?:service|asset)[ _-]?tag)"
_HIDDEN = tuple(
    (re.compile(pattern, re.IGNORECASE | re.ASCII), instead)
    for pattern, instead in (
        (
            rf"({_UNIQUE}\w{{0,40}}(?:[ _-]?(?:number|no))?\"?{_GAP}[:=]{_GAP}\"?)[^\"\s,\[{{][^\",\n]*",
            r"\1REDACTED",
        ),
        (rf"(<\w{{0,40}}{_UNIQUE}\w{{0,40}}>)[^<\n]+", r"\1REDACTED"),
        (
            r"((?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|AUTH)[A-Z0-9_]{0,64}=)[^\"\\\n]*(?:\\.[^\"\\\n]*)*",
            r"\1REDACTED",
        ),
        (
            r"((?<![\w-])--[\w-]{0,64}?(?:key|token(?![is])|password)[\w-]{0,64}(?:=|[ \t]{1,100}|\",[ \t]{0,100}\"))"
            r"[^\s\",]+",
            r"\1REDACTED",
        ),
        (r"((?:bearer|basic)[ \t]{1,100})[\w.~+/=-]{6,}", r"\1REDACTED"),
        (r"(://)[^\s/@:\"]+:[^\s/@\"]+@", r"\1REDACTED@"),
        (r"\b(?:hf|ghp|gho|nvapi|sk)[_-][\w-]{8,}", "REDACTED"),
        (r"\b(?:eui|naa|nvme|t10)\.[0-9a-f][0-9a-f-]{14,}", "REDACTED"),
        (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "00:00:00:00:00:00"),
        (r"\b(?!0\.0\.0\.0|127\.)(?:\d{1,3}\.){3}\d{1,3}\b", "192.0.2.1"),
        (
            r"(?<![\w:.])(?:(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:){1,7}(?::[0-9a-f]{1,4}){1,7})(?![\w:.])",
            "2001:db8::1",
        ),
    )
)


def redacted(text: str, keep: Collection[str] = ()) -> str:
    """Without serial numbers, UUIDs other than those to keep, tokens, passwords and addresses; loopback stays."""
    text = _UUID.sub(lambda found: found[0] if found[0].lower() in keep else NO_UUID, text)
    for pattern, instead in _HIDDEN:
        text = pattern.sub(instead, text)
    return text
