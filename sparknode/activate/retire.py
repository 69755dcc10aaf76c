"""Giving a host back: requests are drained, the engine stops, and what the tool put here goes."""

from __future__ import annotations

import shutil
import uuid

from sparknode.activate.steps import Steps, silence
from sparknode.activate.worker import DONE, LOCK_S
from sparknode.base import locks
from sparknode.base.paths import SERVE_UNIT, UNITS
from sparknode.base.system import Host, Tell
from sparknode.errors import Busy, StepFailed
from sparknode.host import docker
from sparknode.host.node_status import QUESTIONS, images, repositories
from sparknode.host.units import daemon_reload
from sparknode.state import journal, lease, orders, releases
from sparknode.state.journal_writer import Chronicle
from sparknode.state.orders import Order

ORDER_S = 60.0


def retire(host: Host, rollout: str, operator: str, models: bool, tell: Tell) -> int:
    """Remove everything but Docker's other images and, unless told otherwise, the weights; the exit code.

    The host leaves its rotation and is not given back to it.
    """
    lease.require_free(host, rollout)
    purpose = f"retiring this host by {operator}"
    with locks.hold(host.paths, purpose, LOCK_S, host.system.sleep), locks.hold_file(host.paths.store_lock, purpose):
        standing = orders.pending(host.paths)
        if standing:
            orders.resume(host)
            raise Busy(f"{standing} is under way on this host; wait for its end, then retire it again")
        current = releases.load_linked(host.paths, "current")
        if current:
            order = Order(current.id, rollout, operator, intent="retire", activation=str(uuid.uuid4()))
            story = Chronicle(host, order, None, tell)
            steps = Steps(host, story)
            try:
                steps.drain(current, current)
                steps.stop(current)
            except StepFailed as failure:
                story.write(journal.FAILED, error=f"{failure}; nothing was removed")
                raise
        _remove(host, models=models, tell=tell)
    return DONE


def _remove(host: Host, *, models: bool, tell: Tell) -> None:
    paths, system, known = host.paths, host.system, repositories(host.paths)
    units = [path for name in UNITS if (path := paths.unit.with_name(name)).is_file() or path.is_symlink()]
    # Timers first and by themselves: asked for both, systemd stops a look before its timer, and a timer that is due
    # then begins another look. Then what runs at boot; the engine's own unit has its time to stop.
    timers = [unit.name for unit in units if unit.suffix == ".timer"]
    others = [unit.name for unit in units if unit.name not in (SERVE_UNIT, *timers)]
    for names in filter(None, (timers, others)):
        system.run(["systemctl", "disable", "--now", "--quiet", *names], ORDER_S)
    silence(host, disable=True, patience=ORDER_S)
    # A look that was ended halfway has failed, and systemd keeps a failed unit without its file: its timer could then
    # never be started again (systemd.timer: the unit to trigger must be loaded).
    system.run(["systemctl", "reset-failed", *(unit.name for unit in units)], ORDER_S)
    listed = system.run(QUESTIONS["images"], docker.INSPECT_S)
    if not listed.ok:
        tell(f"images: left, since Docker did not report which are here: {listed.why}; see `docker image ls`")
    for unit in units:
        unit.unlink(missing_ok=True)
    shutil.rmtree(paths.drop_ins, ignore_errors=True)
    daemon_reload(system)
    for reference in images(listed, known):
        why = docker.remove_image(system, reference)
        tell(f"image {reference}: {f'left: {why}' if why else 'removed'}")
    for path in sorted(paths.data.iterdir()) if paths.data.exists() else []:
        if path != paths.models or models:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    left = [str(path) for path in (paths.models, paths.data) if path.exists() and any(path.iterdir())][:1]
    if not left and paths.data.exists():
        paths.data.rmdir()
    paths.program.unlink(missing_ok=True)
    shutil.rmtree(paths.modules, ignore_errors=True)
    said = left[0] if left else "nothing"
    tell(f"retired; left: {said}; driver, Docker, its other images and your login are as before")
