"""Everything that was proven here, proven again without a network: bit rot is found by file, and remembered."""

from __future__ import annotations

from sparknode.base.files import read_text
from sparknode.base.shape import Node
from sparknode.base.system import Host, Tell
from sparknode.errors import Refused
from sparknode.host.drift import read_stamp
from sparknode.models import manifest as manifests
from sparknode.models.stage import listed, proven, write_stamp

FAILED = 1


def verify(host: Host, tell: Tell) -> int:
    """Hash every model that stands here; 0 when all are whole. A damaged one is no longer counted as proven, so that
    the next deploy brings it again.
    """
    wrong = 0
    stamps = host.paths.stamps()
    for repo, commit, path in stamps:
        before = read_text(path)
        stamp = read_stamp(host.paths, repo, commit)
        try:
            manifest = manifests.from_node(Node({**(stamp or {}), "repo": repo, "commit": commit}, str(path)))
        except Refused as problem:
            wrong += 1
            tell(f"{problem}; remove it and stage its release again")
            continue
        found = proven(host, manifest, host.paths.model_dir(repo, commit), tell)
        if read_text(path) != before:
            tell(f"model {manifest.name}: it was removed or brought again while it was read; not judged")
            continue
        if found != ((stamp or {}).get("rot") or []):
            write_stamp(host, manifest, found)
        wrong += bool(found)
        tell(f"model {manifest.name}: " + (f"damaged: {listed(found)}" if found else "whole"))
    if wrong:
        tell("the next deploy brings damaged models again, from a peer that has intact files")
    elif not stamps:
        tell("no model stands here")
    return FAILED if wrong else 0
