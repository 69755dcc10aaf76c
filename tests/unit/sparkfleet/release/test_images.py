"""Where an image is pulled from, and who is told the credentials."""

from __future__ import annotations

import pytest

from sparkfleet.release.images import credentials, source, split

DIGEST = "sha256:" + "0" * 64
KNOWN = {"SPARKFLEET_REGISTRY_USER": "ann", "SPARKFLEET_REGISTRY_PASSWORD": "secret"}


@pytest.mark.parametrize(
    ("repository", "registry", "path"),
    [
        ("ghcr.io/aeon-7/aeon-vllm-ultimate", "ghcr.io", "aeon-7/aeon-vllm-ultimate"),
        ("vllm/vllm-openai", "docker.io", "vllm/vllm-openai"),
        ("docker.io/lmsysorg/sglang", "docker.io", "lmsysorg/sglang"),
        ("10.0.0.5:5000/team/image", "10.0.0.5:5000", "team/image"),
        ("localhost/image", "localhost", "image"),
        ("postgres", "docker.io", "postgres"),
    ],
)
def test_a_registry_is_told_from_a_namespace(repository: str, registry: str, path: str) -> None:
    assert split(repository) == (registry, path)


@pytest.mark.parametrize(
    ("mirrors", "repository", "pulled"),
    [
        ({}, "ghcr.io/a/b", "ghcr.io/a/b"),
        ({}, "vllm/vllm-openai", "docker.io/vllm/vllm-openai"),
        ({"docker.io": "http://10.0.0.5:5000/"}, "vllm/vllm-openai", "10.0.0.5:5000/vllm/vllm-openai"),
        ({"ghcr.io": "https://mirror.local"}, "ghcr.io/a/b", "mirror.local/a/b"),
        ({"ghcr.io": "http://10.0.0.5:5000"}, "vllm/vllm-openai", "docker.io/vllm/vllm-openai"),
    ],
)
def test_what_is_pulled(mirrors: dict[str, str], repository: str, pulled: str) -> None:
    assert source(mirrors, repository, DIGEST) == f"{pulled}@{DIGEST}"


def test_a_mirror_without_tls_is_not_offered_the_password() -> None:
    assert credentials({}, "ghcr.io/a/b", KNOWN) == "YW5uOnNlY3JldA=="
    assert credentials({"ghcr.io": "https://mirror.local"}, "ghcr.io/a/b", KNOWN) == "YW5uOnNlY3JldA=="
    assert credentials({"ghcr.io": "http://10.0.0.5:5000"}, "ghcr.io/a/b", KNOWN) is None
    assert credentials({}, "ghcr.io/a/b", {"SPARKFLEET_REGISTRY_USER": "ann"}) is None
