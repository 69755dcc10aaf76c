"""The Hub stand-in against the client that everybody uses."""

from __future__ import annotations

import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from tests.lab import hub_faults
from tests.lab.hub import HubServer
from tests.lab.hub_faults import Fault
from tests.lab.toymodels import DRAFTER, TARGET


class Hub:
    def __init__(self, server: HubServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.api = HfApi(endpoint=self.url, token=False)

    def download(self, target: Path) -> Path:
        return Path(snapshot_download(DRAFTER.repo, endpoint=self.url, token=False, local_dir=target, max_workers=2))

    def fault(self, *faults: Fault) -> None:
        hub_faults.set_faults(*faults, folder=self.folder)

    def sent(self, match: str = "*") -> int:
        return hub_faults.bytes_served(match=match, folder=self.folder)


@pytest.fixture
def hub(hub_store: Path, tmp_path: Path) -> Iterator[Hub]:
    server = HubServer(("127.0.0.1", 0), hub_store, tmp_path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Hub(server, tmp_path)
    server.stopping.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("revision", [None, "main", TARGET.commit])
def test_model_info_names_commit_sizes_and_hashes(hub: Hub, hub_store: Path, revision: str | None) -> None:
    info = hub.api.model_info(TARGET.repo, revision=revision, files_metadata=True)
    assert info.sha == TARGET.commit
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    weights = (hub_store / TARGET.repo / TARGET.commit / "model.safetensors").read_bytes()
    large = files["model.safetensors"]
    assert large.size == len(weights)
    assert large.lfs is not None
    assert large.lfs.sha256 == hashlib.sha256(weights).hexdigest()
    config = (hub_store / TARGET.repo / TARGET.commit / "config.json").read_bytes()
    assert files["config.json"].blob_id == hashlib.sha1(b"blob %d\0" % len(config) + config).hexdigest()


def test_the_tree_agrees_with_the_info(hub: Hub) -> None:
    info = hub.api.model_info(DRAFTER.repo, files_metadata=True)
    entries = [entry for entry in hub.api.list_repo_tree(DRAFTER.repo, recursive=True) if isinstance(entry, RepoFile)]
    assert {entry.path: (entry.size, entry.blob_id) for entry in entries} == {
        sibling.rfilename: (sibling.size, sibling.blob_id) for sibling in info.siblings or []
    }
    assert [entry.path for entry in entries if entry.lfs] == ["model.safetensors"]
    assert [entry.path for entry in hub.api.get_paths_info(DRAFTER.repo, ["config.json"])] == ["config.json"]


def test_a_snapshot_is_the_stored_bytes_and_is_counted(hub: Hub, hub_store: Path, tmp_path: Path) -> None:
    folder = hub.download(tmp_path / "model")
    stored = hub_store / DRAFTER.repo / DRAFTER.commit
    for file in stored.iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()
    assert hub.sent("/lfs/*") == (stored / "model.safetensors").stat().st_size
    before = hub.sent("/lfs/*")
    hub.download(tmp_path / "model")
    assert hub.sent("/lfs/*") == before


def test_a_range_is_served_from_the_middle(hub: Hub, hub_store: Path) -> None:
    url = f"{hub.url}/{DRAFTER.repo}/resolve/main/model.safetensors"
    request = urllib.request.Request(url, headers={"Range": "bytes=100-199"})
    with urllib.request.urlopen(request) as answer:
        assert (answer.status, answer.headers["Content-Range"].split("/")[0]) == (206, "bytes 100-199")
        stored = (hub_store / DRAFTER.repo / DRAFTER.commit / "model.safetensors").read_bytes()
        assert answer.read() == stored[100:200]


def test_what_is_missing_is_named_as_the_hub_names_it(hub: Hub) -> None:
    with pytest.raises(RepositoryNotFoundError):
        hub.api.model_info("nobody/nothing")
    with pytest.raises(RevisionNotFoundError):
        hub.api.model_info(TARGET.repo, revision="0" * 40)
    with pytest.raises(EntryNotFoundError):
        hub.api.hf_hub_download(TARGET.repo, "no-such-file")


def test_nothing_outside_the_store_is_served(hub: Hub) -> None:
    for path in (f"/{TARGET.repo}/resolve/main/../../refs/main", "/../../resolve/main/passwd"):
        request = urllib.request.Request(hub.url + path.replace("..", "%2e%2e"))
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(request)


def test_a_flipped_byte_arrives_unnoticed_by_the_client(hub: Hub, hub_store: Path, tmp_path: Path) -> None:
    hub.fault(Fault("flip", match="*.safetensors"))
    arrived = (hub.download(tmp_path / "model") / "model.safetensors").read_bytes()
    stored = (hub_store / DRAFTER.repo / DRAFTER.commit / "model.safetensors").read_bytes()
    assert len(arrived) == len(stored)
    assert sum(a != b for a, b in zip(arrived, stored, strict=True)) == 1


def test_a_truncated_body_is_resumed_or_refused(hub: Hub, hub_store: Path, tmp_path: Path) -> None:
    hub.fault(Fault("truncate", match="*.safetensors", times=1))
    folder = hub.download(tmp_path / "model")
    stored = hub_store / DRAFTER.repo / DRAFTER.commit / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == stored.read_bytes()
    assert len(_lines(hub, "/lfs/")) == 2


def _lines(hub: Hub, prefix: str) -> list[str]:
    return [line for line in (hub.folder / "hub-access.jsonl").read_text().splitlines() if f'"path": "{prefix}' in line]


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_ends_after_its_count(hub: Hub, status: int) -> None:
    hub.fault(Fault("status", match="/api/*", status=status, times=1, retry_after_s=0))
    with pytest.raises(HfHubHTTPError, match=str(status)):
        hub.api.model_info(TARGET.repo)
    assert hub.api.model_info(TARGET.repo).sha == TARGET.commit


def test_a_hang_answers_nothing(hub: Hub) -> None:
    hub.fault(Fault("hang"))
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(f"{hub.url}/api/models/{TARGET.repo}", timeout=0.3)
