"""Set and clear knobs from outside, and ask the control server what the engines do.

A knob set for ``all`` hosts is the weakest, then one for all hosts on one image tag, then one for a host, then
one for a host on one image tag.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from tests.lab.config import CONTROL_PORT, GATEWAY, LabError, host_named
from tests.lab.engine.knobs import KnobError, checked

ALL = "all"


def set_knobs(host: str = ALL, tag: str | None = None, **settings: Any) -> None:
    """Set knobs; returns once every engine concerned has them."""
    try:
        checked_settings = checked(settings)
    except KnobError as error:
        raise LabError(f"{error}; every knob is described in tests/lab/README.md") from error
    _request("POST", "/knobs", {"host": _host(host), "tag": tag, "set": checked_settings})


def clear_knobs(host: str | None = None, tag: str | None = None) -> None:
    """Forget what was set for a host (and tag), or with no host everything that was set for anything."""
    _request("POST", "/knobs", {"host": _host(host) if host else None, "tag": tag, "clear": True})


def knobs() -> dict[str, Any]:
    """What is set, by ``host`` or ``host/tag``."""
    found: dict[str, Any] = _request("GET", "/knobs")
    return found


def state(host: str) -> dict[str, Any]:
    """A host's memory and the engines that run on it, each with its tag and phase."""
    found: dict[str, Any] = _request("GET", "/state")["hosts"].get(host_named(host).name, {})
    return found


def is_running() -> bool:
    try:
        _request("GET", "/state", timeout_s=2.0)
    except LabError:
        return False
    return True


def wait_ready(timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_running():
        if time.monotonic() > deadline:
            raise LabError(
                f"the control server on {_url('')} did not answer within {timeout_s:.0f} s; see its log in .lab"
            )
        time.sleep(0.05)


def _host(name: str) -> str:
    return ALL if name == ALL else host_named(name).name


def _url(path: str) -> str:
    return f"http://{GATEWAY}:{CONTROL_PORT}{path}"


def _request(method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = 10.0) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(_url(path), data=data, method=method)
    # The lab is on this machine; a proxy for the outside world would only lose its way.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise LabError(f"the control server refused {method} {path}: {error.read().decode()}") from error
    except (urllib.error.URLError, OSError) as error:
        raise LabError(
            f"no control server answers on {_url('')} ({error}); start the lab with `python -m tests.lab up`"
        ) from error
