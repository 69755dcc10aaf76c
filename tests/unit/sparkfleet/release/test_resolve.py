"""What a registry answers becomes a lock entry; what it refuses becomes a message with a remedy."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sparkfleet.catalog.catalog import Image, load
from sparkfleet.errors import LockError
from sparkfleet.release.registry import Registry
from sparkfleet.release.resolve import images_to_lock, resolve_image

REPOSITORY = "ghcr.io/acme/engine"


def _digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


class FakeRegistry:
    """A loopback registry with one multi-architecture tag and one single-architecture tag."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.token: str | None = None
        self.login: str | None = None
        # Each request's path, and what it said of who asks.
        self.told: list[tuple[str, str | None]] = []
        # What is answered to a path that ends so, instead.
        self.instead: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.challenge = 'Bearer realm="{realm}",service="s",scope="pull"'
        manifests = [self._manifest(architecture) for architecture in ("arm64", "amd64")]
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {"digest": digest, "platform": {"os": "linux", "architecture": architecture}}
                for digest, architecture in zip(manifests, ("arm64", "amd64"), strict=True)
            ]
            + [{"digest": "sha256:attestation", "platform": {"os": "unknown", "architecture": "unknown"}}],
        }
        self.tags["multi"] = self._put(index)
        self.tags["single"] = manifests[0]

    def _put(self, document: Any) -> str:
        body = json.dumps(document).encode()
        self.blobs[_digest(body)] = body
        return _digest(body)

    def _manifest(self, architecture: str) -> str:
        config = self._put({"architecture": architecture, "config": {"Entrypoint": ["bash"]}})
        return self._put(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"digest": config},
                "layers": [{"size": 700}, {"size": 300}],
            }
        )


@pytest.fixture
def registry() -> Iterator[tuple[FakeRegistry, str]]:
    fake = FakeRegistry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.headers.get("Authorization")
            fake.told.append((self.path.split("?")[0], sent))
            for end, (status, headers, content) in fake.instead.items():
                if self.path.split("?")[0].endswith(end):
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                    return
            if self.path.startswith("/token"):
                self._answer(200, json.dumps({"token": "t0k"}).encode())
                return
            if self.path.startswith("/elsewhere/"):
                self._answer(200, fake.blobs[self.path.removeprefix("/elsewhere/")])
                return
            if fake.login and sent != f"Basic {fake.login}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="team"')
                self.end_headers()
                return
            if fake.token and sent != f"Bearer {fake.token}":
                realm = f"http://{self.headers['Host']}/token"
                self.send_response(401)
                self.send_header("WWW-Authenticate", fake.challenge.format(realm=realm))
                self.end_headers()
                return
            reference = self.path.rsplit("/", 1)[1]
            if "/blobs/" in self.path:
                port = str(self.headers["Host"]).rpartition(":")[2]
                self.send_response(307)
                self.send_header("Location", f"http://localhost:{port}/elsewhere/{reference}")
                self.end_headers()
                return
            body = fake.blobs.get(fake.tags.get(reference, reference))
            self._answer(200, body) if body else self._answer(404, b"{}")

        def _answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Docker-Content-Digest", _digest(body))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield fake, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _image(**changes: Any) -> Image:
    return Image(repository=REPOSITORY, line="aeon-0.22", state="candidate", sources={"*": "a test"}, **changes)


@pytest.mark.parametrize(("tag", "architectures"), [("multi", {"arm64", "amd64"}), ("single", {"arm64"})])
@pytest.mark.parametrize("token", [None, "t0k"])
def test_a_tag_becomes_digests(
    registry: tuple[FakeRegistry, str], tag: str, architectures: set[str], token: str | None
) -> None:
    fake, url = registry
    fake.token = token
    locked = resolve_image(tag, _image(), {"ghcr.io": url})
    assert locked.digest == fake.tags[tag]
    assert set(locked.platforms) == architectures
    assert locked.platforms["arm64"].compressed_bytes == 1000
    assert locked.platforms["arm64"].entrypoint == ["bash"]


def test_a_private_registry_gets_the_login_and_nobody_else_does(registry: tuple[FakeRegistry, str]) -> None:
    fake, url = registry
    fake.login = "YW5uOnNlY3JldA=="
    with pytest.raises(LockError, match="HTTP 401"):
        Registry(url, "acme/engine").manifest("multi")
    found = Registry(url, "acme/engine", fake.login)
    _, index = found.manifest("multi")
    _, manifest = found.manifest(index["manifests"][0]["digest"])
    assert found.config(manifest)["architecture"]
    assert [sent for path, sent in fake.told if path.startswith("/elsewhere/")] == [None]

    fake.login, fake.token = None, "t0k"
    Registry(url, "acme/engine", "YW5uOnNlY3JldA==").manifest("multi")
    assert ("/token", None) in fake.told, "a password goes nowhere in the clear"


WITHOUT_CONFIG = json.dumps({"schemaVersion": 2, "layers": []}).encode()
ELSEWHERE = json.dumps({"manifests": [{"digest": "sha256:1", "platform": {"os": "linux", "architecture": "s390x"}}]})


@pytest.mark.parametrize(
    ("status", "headers", "body", "says"),
    [
        (200, {}, b"<html>Welcome to the airport</html>", "no JSON document, it begins with '<html>Welcome"),
        (200, {}, b"", "no JSON document"),
        (200, {}, b"[1]", "no JSON document"),
        (200, {"Content-Length": "9999"}, b'{"cut": ', "did not give manifests/multi"),
        (200, {"Docker-Content-Digest": "sha256:" + "0" * 64}, b"{}", "it was called sha256:000"),
        (200, {}, WITHOUT_CONFIG, "the manifest names none, so this is no image"),
        (200, {}, ELSEWHERE.encode(), "is there for linux/s390x only"),
        (200, {}, b'{"manifests": []}', "is there for nothing only"),
        (200, {}, b'{"manifests": 3}', "is described by no manifest that can be read"),
        (200, {}, b" " * (5 << 20), "larger than 4 MiB"),
        (500, {}, b"", "HTTP 500"),
        (301, {}, b"", "HTTP 301"),
        (301, {"Location": "/v2/acme/engine/manifests/multi"}, b"", "did not give manifests/multi"),
        (401, {"WWW-Authenticate": 'Bearer realm="not a url"'}, b"", "did not give"),
        (401, {"WWW-Authenticate": "Bearer nonsense"}, b"", "did not give"),
        (401, {"WWW-Authenticate": "Negotiate"}, b"", "HTTP 401"),
        (401, {}, b"", "HTTP 401"),
    ],
)
def test_whatever_a_registry_answers_is_refused_in_words(
    registry: tuple[FakeRegistry, str], status: int, headers: dict[str, str], body: bytes, says: str
) -> None:
    fake, url = registry
    fake.instead["/manifests/multi"] = status, headers, body
    with pytest.raises(LockError) as refused:
        resolve_image("multi", _image(), {"ghcr.io": url})
    assert says in refused.value.found
    assert refused.value.remedy


@pytest.mark.parametrize("key", ["token", "access_token"])
@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="{realm}",service="s",scope="repository:acme/engine:pull,push"',
        'bearer realm="{realm}", service="a, b"',
        "Bearer realm={realm}",
    ],
)
def test_any_form_of_a_token_service_is_understood(
    registry: tuple[FakeRegistry, str], key: str, challenge: str
) -> None:
    fake, url = registry
    fake.token, fake.challenge = "t0k", challenge
    fake.instead["/token"] = 200, {}, json.dumps({key: "t0k"}).encode()
    assert resolve_image("multi", _image(), {"ghcr.io": url}).platforms.keys() == {"arm64", "amd64"}


def test_a_digest_is_computed_where_the_registry_names_none(registry: tuple[FakeRegistry, str]) -> None:
    fake, url = registry
    body = fake.blobs[fake.tags["single"]]
    fake.instead["/manifests/single"] = 200, {}, body
    assert resolve_image("single", _image(), {"ghcr.io": url}).digest == _digest(body)


def test_what_a_digest_names_must_have_it(registry: tuple[FakeRegistry, str]) -> None:
    fake, url = registry
    fake.instead[fake.tags["single"]] = 200, {}, b'{"another": "manifest"}'
    with pytest.raises(LockError, match="its content is sha256:"):
        resolve_image("multi", _image(), {"ghcr.io": url})


def test_an_absent_tag_is_refused_with_a_remedy(registry: tuple[FakeRegistry, str]) -> None:
    with pytest.raises(LockError, match="HTTP 404") as refused:
        resolve_image("absent", _image(), {"ghcr.io": registry[1]})
    assert "registry_mirrors" in refused.value.text()


def test_an_unreachable_registry_is_refused() -> None:
    with pytest.raises(LockError, match="did not give manifests/x of acme/engine"):
        resolve_image("x", _image(), {"ghcr.io": "http://127.0.0.1:9"})


def test_the_way_back_is_locked_too() -> None:
    assert images_to_lock(load(), ["2026-06-11-pr41703"]) == ["2026-06-11-pr41703", "2026-06-04-pr44389"]
