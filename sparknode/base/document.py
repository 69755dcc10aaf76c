"""A release as its JSON document: how it is spelled, named and told of, on both sides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(document: object) -> bytes:
    """The one spelling of a JSON document that hashes are taken over."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def content_id(raw: dict[str, Any]) -> str:
    content = {key: value for key, value in raw.items() if key != "id"}
    return hashlib.sha256(canonical(content)).hexdigest()[:16]


def described(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What a person asks of a release, and what the plan of another one is held against."""
    return {
        **{key: raw[key] for key in ("id", "image_tag", "model", "profile")},
        **{key: raw["image"][key] for key in ("digest", "reference")},
        **{key: raw["serve"].get(key) for key in ("drafter_backend", "prefix_caching")},
        "commits": {row["repo"]: row["commit"] for row in raw["artefacts"]},
        **{key: raw["container"][key] for key in ("args", "env", "gpu")},
        **{
            key: raw.get(key) for key in ("overrides", "gates", "timing", "watch", "memory", "rotation", "api_key_file")
        },
    }
