"""A JSON document whose content names it: how it is spelled and hashed, on both sides."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(document: object) -> bytes:
    """The one spelling of a JSON document that hashes are taken over."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def content_id(raw: dict[str, Any]) -> str:
    content = {key: value for key, value in raw.items() if key != "id"}
    return hashlib.sha256(canonical(content)).hexdigest()[:16]
