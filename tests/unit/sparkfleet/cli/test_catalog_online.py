"""What registry and Hub hold today, beside the catalogue: what moved, what is new, and the row to add."""

from __future__ import annotations

import datetime
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkfleet.catalog.catalog import Catalog, Image, load
from sparkfleet.cli.catalog_check import problems
from sparkfleet.cli.catalog_online import Upstream, new_tags, news
from sparkfleet.cli.main import main
from sparkfleet.errors import LockError

TODAY = datetime.date(2026, 12, 1)
AEON, STOCK = "ghcr.io/aeon-7/aeon-vllm-ultimate", "vllm/vllm-openai"
_NEWEST = max((tag, row.line) for tag, row in load().images.items() if row.repository == AEON and tag[0].isdigit())
NEWEST = {"line": _NEWEST[1], "rollback_to": _NEWEST[0]}


def rows(*tags: str) -> dict[str, Image]:
    return {
        tag: Image(repository="acme/engine", line="aeon-0.27", state="candidate", sources={"*": "a test"})
        for tag in tags
    }


@pytest.mark.parametrize(
    ("known", "tags", "new"),
    [
        (["2026-09-11-a"], ["2026-09-11-a", "2026-09-18-b", "2026-08-01-c", "latest", "edge"], ["2026-09-18-b"]),
        (["2026-09-11-a"], ["2026-09-11-b"], ["2026-09-11-b"]),
        (["v0.32.0"], ["v0.33.0", "v0.32.1", "v0.31.0", "v0.33.0-x86_64", "v0.34.0rc1"], ["v0.32.1", "v0.33.0"]),
        (["v0.9.0"], ["v0.10.0"], ["v0.10.0"]),
        (["v0.32.0-aarch64"], ["v0.33.0", "v0.33.0-aarch64"], ["v0.33.0-aarch64"]),
        (["2026-09-11-a"], ["v0.33.0"], []),
        (["v2"], ["v3", "2026-09-18-b", "v0.33.0"], []),
        (["2026-09-11-a"], [], []),
    ],
)
def test_a_tag_is_new_beside_its_kind(known: list[str], tags: list[str], new: list[str]) -> None:
    assert new_tags(rows(*known), tags) == new


def digest_of(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def unmoved(catalog: Catalog) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Registries and a Hub where everything is as the catalogue has it; a digest that it lacks is made up."""
    registries: dict[str, dict[str, str]] = {}
    for key, image in catalog.images.items():
        name = image.registry_tag or key
        registries.setdefault(image.repository, {})[name] = image.digest or digest_of(name)
    models = [row for model in catalog.models.values() for row in model.all_repositories()]
    return registries, {row.repo: row.revision or "0" * 40 for row in models}


def upstream(registries: dict[str, dict[str, str]], commits: dict[str, str]) -> Upstream:
    def tags(repository: str) -> list[str]:
        if repository not in registries:
            raise LockError(f"the registry of {repository} does not answer")
        return list(registries[repository])

    def digest(repository: str, tag: str) -> str:
        if not (found := registries[repository][tag]):
            raise LockError(f"{tag} has no manifest")
        return found

    def commit(repo: str) -> str:
        if repo not in commits:
            raise LockError(f"the Hub did not resolve {repo}")
        return commits[repo]

    return Upstream(tags, digest, commit)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The project's catalogue, with a digest in every row."""
    known = load()
    images = {
        key: image if image.digest else image.model_copy(update={"digest": digest_of(image.registry_tag or key)})
        for key, image in known.images.items()
    }
    return known.model_copy(update={"images": images})


def test_where_nothing_moved_there_is_no_news(catalog: Catalog) -> None:
    assert list(news(catalog, upstream(*unmoved(catalog)), TODAY)) == []


def test_what_moved_is_named(catalog: Catalog) -> None:
    registries, commits = unmoved(catalog)
    registries[AEON]["2026-07-27-v0.26.0"] = digest_of("another build")
    del registries[AEON]["2026-07-16-v0.25.1"]
    registries[AEON]["2026-07-14-v0.25.0"] = ""
    repo, revision = next((repo, commit) for repo, commit in commits.items() if commit != "0" * 40)
    commits[repo] = "1" * 40
    del commits["z-lab/gemma-4-26B-A4B-it-DFlash"]
    found = list(news(catalog, upstream(registries, commits), TODAY))
    texts = "\n".join(found)
    assert "images.2026-07-27-v0.26.0: 2026-07-27-v0.26.0 was moved: digest is sha256:1aa47" in texts
    assert f"images.2026-07-16-v0.25.1: {AEON} has no tag 2026-07-16-v0.25.1 any more" in texts
    assert "images.2026-07-14-v0.25.0: not checked: 2026-07-14-v0.25.0 has no manifest" in texts
    assert f"{repo} moved: revision is {revision}, and main is {'1' * 40}" in texts
    assert "z-lab/gemma-4-26B-A4B-it-DFlash: not checked: the Hub did not resolve" in texts


def test_a_digest_that_the_catalogue_lacks_is_news() -> None:
    known = load()
    lacking = [key for key, image in known.images.items() if image.digest is None and image.registry_tag != "latest"]
    found = list(news(known, upstream(*unmoved(known)), TODAY))
    assert lacking
    assert sorted(text.split(":")[0] for text in found) == sorted(f"images.{key}" for key in lacking)


def test_a_registry_that_does_not_answer_is_said_and_the_others_are_asked(catalog: Catalog) -> None:
    registries, commits = unmoved(catalog)
    del registries[AEON]
    registries[STOCK]["v0.33.0"] = digest_of("0.33.0")
    found = list(news(catalog, upstream(registries, commits), TODAY))
    assert found[0] == f"{AEON}: not checked: the registry of {AEON} does not answer"
    assert found[1].startswith(f"{STOCK}: v0.33.0 is new\n")


@pytest.mark.parametrize(
    ("repository", "tag", "expected"),
    [
        (
            AEON,
            "2026-12-01-v0.33.0-omni",
            {"engine_version": "0.33.0", **NEWEST},
        ),
        (
            STOCK,
            "v0.33.0",
            {"registry_tag": "v0.33.0", "line": "vllm-0.32", "engine_version": "0.33.0"},
        ),
        (AEON, "2026-12-01-quicker", NEWEST),
    ],
)
def test_the_row_to_add_is_one_that_the_catalogue_takes(
    catalog: Catalog, tmp_path: Path, repository: str, tag: str, expected: dict[str, str]
) -> None:
    registries, commits = unmoved(catalog)
    registries[repository][tag] = digest_of(tag)
    [text] = news(catalog, upstream(registries, commits), TODAY)
    title, _, row = text.partition("\n")
    assert title == f"{repository}: {tag} is new"
    [(key, cells)] = yaml.safe_load(row).items()
    assert expected.items() <= cells.items()
    (tmp_path / "images.yaml").write_text(f"schema: 1\nimages:\n{row}")
    with_it = load((tmp_path,))
    assert with_it.images[key].digest == digest_of(tag)
    assert problems(with_it) == []


def test_the_same_image_under_another_new_tag_is_no_news(catalog: Catalog) -> None:
    registries, commits = unmoved(catalog)
    registries[AEON]["2026-09-18-v0.29.0-omni-dflash2"] = registries[AEON]["2026-09-18-v0.29.0-omni"]
    registries[AEON]["2026-12-01-a"] = registries[AEON]["2026-12-01-b"] = digest_of("one build")
    found = list(news(catalog, upstream(registries, commits), TODAY))
    assert [text.partition("\n")[0] for text in found] == [f"{AEON}: 2026-12-01-a is new"]


class Loopback:
    """A registry and a Hub in one: the tags of the catalogue, ten a page, all with one manifest."""

    MANIFEST = json.dumps({"schemaVersion": 2}).encode()

    def __init__(self, catalog: Catalog) -> None:
        self.registries, self.commits = unmoved(catalog)
        self.asked: list[str] = []

    def answer(self, target: str) -> tuple[int, dict[str, str], bytes]:
        path, _, query = target.partition("?")
        self.asked.append(path)
        if path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/")
            return 200, {}, json.dumps({"id": repo, "sha": self.commits[repo], "siblings": []}).encode()
        name, _, rest = path.removeprefix("/v2/").partition("/tags/list")
        repository = next((one for one in self.registries if one.endswith(name)), None)
        if rest == "" and path.endswith("/tags/list") and repository:
            tags = sorted(self.registries[repository])
            start = int(query.partition("from=")[2] or 0)
            more = start + 10 < len(tags)
            link = {"Link": f'</v2/{name}/tags/list?from={start + 10}>; rel="next"'} if more else {}
            return 200, link, json.dumps({"name": name, "tags": tags[start : start + 10]}).encode()
        return 200, {}, self.MANIFEST


@pytest.fixture
def loopback() -> Iterator[tuple[Loopback, str]]:
    stub = Loopback(load())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = stub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield stub, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_command_asks_registries_and_hub(
    loopback: tuple[Loopback, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub, url = loopback
    for name in ("SPARKFLEET_REGISTRY_USER", "SPARKFLEET_REGISTRY_PASSWORD", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    stub.registries[AEON]["2026-12-01-v0.33.0"] = digest_of("new")
    mirrors = [word for host in ("ghcr.io", "docker.io") for word in ("--registry-mirror", f"{host}={url}")]
    assert main(["catalog", "check", "--online", *mirrors, "--hub-endpoint", url]) == 1
    out = capsys.readouterr().out
    digest = "sha256:" + hashlib.sha256(Loopback.MANIFEST).hexdigest()
    assert "images.2026-07-27-v0.26.0: 2026-07-27-v0.26.0 was moved: digest is sha256:1aa47363e4c9" in out
    assert f"and the registry has {digest}" in out
    assert f"upstream: {AEON}: 2026-12-01-v0.33.0 is new" in out
    assert "moved: revision is" not in out
    assert "not checked" not in out
    assert stub.asked.count("/v2/aeon-7/aeon-vllm-ultimate/tags/list") == 2
    assert any(path.startswith("/api/models/") for path in stub.asked)


def test_a_mirror_without_a_url_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "check", "--online", "--registry-mirror", "ghcr.io"]) == 2
    assert "--registry-mirror ghcr.io has no URL" in capsys.readouterr().err
