"""The part of the OCI distribution API that resolving a tag needs: manifests and configurations, by tag or digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sparkfleet.errors import LockError
from sparkfleet.release import images

if TYPE_CHECKING:
    import httpx

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
# Where the API of docker.io answers.
DOCKER_HUB_API = "registry-1.docker.io"
SILENCE_S = 30
ANSWER_S = 60
# The distribution specification has registries take manifests of 4 MiB; configurations are smaller.
MAX_BYTES = 4 << 20
# The next page is named as «</v2/NAME/tags/list?n=1000&last=TAG>; rel="next"»; only its query is taken over.
NEXT_PAGE = re.compile(r"<[^<>?]*\?([^<>]*)>\s*;[^,]*\brel=\"?next\b")
MAX_PAGES = 50
# Tokens are bound to what they are for: registries differ in the name (Docker's own documentation has both).
TOKEN_KEYS = ("token", "access_token")


class Answer(NamedTuple):
    """A whole answer; header names are matched in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """One repository of a registry. Each answer's digest is computed, and must be the one that was asked for.

    A registry that asks who we are gets `login`, as Docker writes it, where there is one; public images need none.
    Every method raises LockError, with what was found.
    """

    def __init__(self, base_url: str, path: str, login: str | None = None) -> None:
        self.base_url = base_url
        self.path = path
        self.login = login
        self.authorization: str | None = None

    @classmethod
    def of(cls, repository: str, mirrors: Mapping[str, str]) -> Registry:
        host, path = images.split(repository)
        mirror = mirrors.get(host)
        url = mirror or f"https://{DOCKER_HUB_API if host == images.DOCKER_HUB else host}"
        return cls(url.rstrip("/"), path, images.credentials(mirrors, repository, os.environ))

    @cached_property
    def _client(self) -> httpx.Client:
        # Not above: only `lock` and the catalogue's own check come here, and a deploy without news must begin at once.
        import httpx

        # A redirect to another origin, such as a blob's storage, is followed without the Authorization header.
        return httpx.Client(follow_redirects=True, timeout=SILENCE_S)

    def manifest(self, reference: str) -> tuple[str, dict[str, Any]]:
        """Return the digest and the document of a manifest or an index."""
        body, headers = self._get(f"manifests/{reference}", ", ".join((*INDEX_TYPES, *MANIFEST_TYPES)))
        digest = _sha256(body)
        # Another algorithm than sha256 is allowed by the specification, and nothing here could pull it.
        claimed = reference if ":" in reference else headers.get("docker-content-digest", digest)
        if claimed != digest:
            raise self._refused(f"manifest {reference}", f"its content is {digest}, and it was called {claimed}")
        return digest, self._document(f"manifest {reference}", body)

    def config(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Return the image configuration that a manifest names."""
        digest = (manifest.get("config") or {}).get("digest")
        if not isinstance(digest, str):
            raise self._refused("a configuration", "the manifest names none, so this is no image")
        body, _ = self._get(f"blobs/{digest}", "*/*")
        if _sha256(body) != digest:
            raise self._refused(f"configuration {digest}", f"its content is {_sha256(body)}")
        return self._document(f"configuration {digest}", body)

    def tags(self) -> list[str]:
        """Return the repository's tags, all pages of them."""
        found: list[str] = []
        path = "tags/list?n=1000"
        for _ in range(MAX_PAGES):
            body, headers = self._get(path, "application/json")
            found += [str(tag) for tag in self._document("list of tags", body).get("tags") or []]
            more = NEXT_PAGE.search(headers.get("link", ""))
            if more is None:
                return found
            path = f"tags/list?{more[1]}"
        raise self._refused("its list of tags", f"it has more than {MAX_PAGES} pages")

    def _document(self, what: str, body: bytes) -> dict[str, Any]:
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            start = body[:60].decode(errors="replace").strip()
            raise self._refused(what, f"the answer is no JSON document, it begins with {start!r} (a captive portal?)")
        return document

    def _get(self, path: str, accept: str) -> tuple[bytes, Mapping[str, str]]:
        import httpx

        url = f"{self.base_url}/v2/{self.path}/{path}"
        try:
            answer = self._request(url, accept)
            if answer.status == 401 and not self.authorization:
                self.authorization = self._answer_to(answer.headers.get("www-authenticate", ""))
                if self.authorization:
                    answer = self._request(url, accept)
        except httpx.HTTPError as error:
            raise self._refused(path, str(error) or type(error).__name__) from None
        if answer.status != 200:
            raise self._refused(path, f"HTTP {answer.status}")
        return answer.body, answer.headers

    def _request(self, url: str, accept: str) -> Answer:
        headers = {"Accept": accept, **({"Authorization": self.authorization} if self.authorization else {})}
        return self._whole(self._client.build_request("GET", url, headers=headers))

    def _whole(self, request: httpx.Request) -> Answer:
        """Return the answer with its body, which must end within ANSWER_S and MAX_BYTES."""
        deadline = time.monotonic() + ANSWER_S
        answer = self._client.send(request, stream=True)
        body = bytearray()
        try:
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise self._refused(request.url.path, f"the answer is larger than {MAX_BYTES >> 20} MiB")
                if time.monotonic() > deadline:
                    raise self._refused(request.url.path, f"the answer did not end within {ANSWER_S} s")
        finally:
            answer.close()
        return Answer(answer.status_code, answer.headers, bytes(body))

    def _answer_to(self, challenge: str) -> str | None:
        """Return the Authorization that a registry asks for, or None where that cannot be had."""
        kind, _, text = challenge.partition(" ")
        if kind.lower() == "basic":
            return f"Basic {self.login}" if self.login else None
        if kind.lower() != "bearer":
            return None
        rows = (row.partition("=") for row in urllib.request.parse_http_list(text))
        fields = {key.strip().lower(): value.strip().strip('"') for key, _, value in rows}
        realm = fields.get("realm", "")
        query: dict[str, str] = {key: value for key, value in fields.items() if key in ("service", "scope")}
        # Whoever answers chooses where the token comes from; a password goes nowhere in the clear.
        known = {"Authorization": f"Basic {self.login}"} if self.login and realm.startswith("https://") else {}
        try:
            answer = self._whole(self._client.build_request("GET", realm, params=query, headers=known))
        except (ValueError, TypeError) as error:
            raise self._refused("a token", f"it asks for one from {realm!r}: {error}") from None
        if answer.status != 200:
            raise self._refused("a token", f"HTTP {answer.status}")
        document = self._document("a token", answer.body)
        token = next((document[key] for key in TOKEN_KEYS if document.get(key)), None)
        if not token:
            raise self._refused("a token", f"the answer has none of {', '.join(TOKEN_KEYS)}")
        return f"Bearer {token}"

    def _refused(self, what: str, reason: str) -> LockError:
        return LockError(
            f"the registry {self.base_url.partition('://')[2]} did not give {what} of {self.path}: {reason}",
            "an image that this machine may read",
            "check the name and the network; for a private registry set SPARKFLEET_REGISTRY_USER and _PASSWORD in the "
            "environment, for a registry of your own registry_mirrors",
        )


def _sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
