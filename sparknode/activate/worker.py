"""The worker of an activation: stop-first, because one GPU can't hold two engines.

It runs in a unit of its own and decides alone. Whatever goes wrong after the old engine was stopped, it goes back to
the release that was verified before, and says which gate did not hold. What ended before its last line, by a kill, a
stop, an error or a power cut, is taken up by the next start of the unit, which ends it.
"""

from __future__ import annotations

from collections.abc import Callable

from sparknode.activate import rotation
from sparknode.activate.steps import Steps, await_answer, silence
from sparknode.base import locks
from sparknode.base.files import atomic_link
from sparknode.base.paths import Paths
from sparknode.base.system import Host, Tell
from sparknode.errors import Failed, Refused, StepFailed
from sparknode.host import units
from sparknode.state import journal, orders, releases
from sparknode.state.journal import Attempt
from sparknode.state.journal_writer import Chronicle
from sparknode.state.release import Release

DONE, REVERTED, FAILED, BUSY = 0, 10, 20, 30
# A verified release whose engine ended on the way back may have been killed, or Docker under it.
BACK_TRIES = 3
EXIT_OF = {journal.COMMITTED: DONE, journal.REVERTED: REVERTED, journal.FAILED: FAILED}
# Whatever else holds the lock (the watch, a prune) is soon done.
LOCK_S = 60.0
# systemd ends what is left within its own time-outs.
SHUTDOWN_S, SHUTDOWN_POLL_S = 600.0, 2.0


def work(host: Host, tell: Tell, ready: Callable[[], None]) -> int:
    """Carry out the order that stands, or end what was cut off of it; 0 once nothing is left of it.

    `ready` is called when the serving unit may start: at a boot it waits for that.
    """
    told = orders.pending(host.paths)
    with locks.hold(host.paths, str(told), LOCK_S, host.system.sleep):
        order = orders.pending(host.paths)
        if order is None:
            tell("no activation is under way")
            return DONE
        back = _readable(host.paths, host.paths.linked("verified"))
        release = _readable(host.paths, order.release) or back
        cut = journal.attempt(journal.read(host.paths), order.activation)
        if cut is None and order.boot != orders.boot_id(host.paths):
            tell(f"{order} had not begun when this host went down; it is dropped")
            orders.close(host.paths)
            return DONE
        if release is None:
            orders.close(host.paths)
            raise Failed(f"{order} can't be ended: {order.release} can't be read, and no release is verified here")
        if cut is None:
            ready()
            story = Chronicle(host, order, host.paths.linked("verified"), tell)
            state = Activation(host, story, release, back, ready).forth()
        else:
            story = Chronicle.of(host, order, cut, tell)
            state = cut.state if cut.ended else Activation(host, story, release, back, ready).end(cut)
            ready()
        conclude(host, story, state)
    return DONE


def conclude(host: Host, story: Chronicle, state: str) -> None:
    """What the line that ended an activation means, done as often as that is cut off: links, rotation, no order."""
    if state == journal.COMMITTED:
        point_verified(host.paths, story.order.release, story.source)
    if state in journal.PROVEN and rotation.is_out(host):
        serves = releases.load_linked(host.paths, "verified")
        story.going_back = True
        if serves and await_answer(host, serves):
            story.write(state, note=rotation.give_back(host))
        else:
            story.write(state, note="STILL OUT OF ROTATION: the engine does not answer")
    orders.close(host.paths)


def point_verified(paths: Paths, release_id: str, source: str | None) -> None:
    """`verified` names what was proven last, `previous` what was proven before that."""
    if source and source != release_id:
        atomic_link(paths.link("previous"), f"releases/{source}")
    atomic_link(paths.link("verified"), f"releases/{release_id}")


def _readable(paths: Paths, release_id: str | None) -> Release | None:
    try:
        return releases.load(paths, release_id) if release_id else None
    except Refused:
        return None


class Activation:
    """One release's way from staged to committed, or back; each way returns the state in which it ended."""

    def __init__(
        self, host: Host, story: Chronicle, release: Release, back: Release | None, ready: Callable[[], None]
    ) -> None:
        self._host = host
        self._story = story
        self._release = release
        self._back = back
        self._ready = ready
        self._steps = Steps(host, story)

    def forth(self) -> str:
        release, steps, story = self._release, self._steps, self._story
        going_back = f"rolls back to {self._back.id}" if self._back else "has no release to roll back to"
        if self._back and self._back.id == release.id:
            going_back = "is started once more, as it was verified here before"
        outgoing = releases.load_linked(self._host.paths, "current")
        try:
            story.write(journal.LEASED, note=f"a release that fails {going_back}")
            steps.drain(outgoing, release)
            steps.require_ready(release, self._back)
            steps.stop(outgoing, release)
            steps.reclaim(release)
            steps.switch(release)
            watch = steps.start(release)
            story.enter(journal.PROBING, "every gate on the running engine")
            steps.prove(journal.PROBING, release, watch)
            steps.soak(release, watch)
            steps.vouch(release)
            story.write(
                journal.COMMITTED,
                note=f"release {release.id} is verified{steps.unjudged(release)}",
                load_s=steps.load_s,
            )
        # A full disk or a fault of our own must not leave the node without an engine.
        except Exception as fault:
            self._leave_if_going_down()
            return self._go_back(_as_failure(fault))
        return journal.COMMITTED

    def end(self, cut: Attempt) -> str:
        """Go back after the process that did this was cut off; what it knew is asked again."""
        causes = (record["error"] for record in cut.records if record["state"] == journal.REVERTING)
        return self._go_back(StepFailed(str(next(causes, f"cut off in `{cut.state}`: its worker ended"))))

    def _leave_if_going_down(self) -> None:
        """What ends because this host is shut down has not failed: the boot ends the activation. Nor has what systemd
        did not answer to: nothing can be stopped or started before it does.
        """
        until = self._host.system.monotonic() + SHUTDOWN_S
        while (going_down := units.shutting_down(self._host.system)) is not False:
            if self._host.system.monotonic() >= until:
                why = "this host is going down" if going_down else f"systemd has not answered for {SHUTDOWN_S:.0f} s"
                raise StepFailed(f"{why}; the next start of the unit, at the latest by a boot, ends the activation")
            self._host.system.sleep(SHUTDOWN_POLL_S)

    def _go_back(self, failure: StepFailed) -> str:
        story, back = self._story, self._back
        story.going_back = True
        if not story.touched and self._runs():
            story.write(journal.REVERTED, error=f"{failure}; nothing was changed, what served before still serves")
            return journal.REVERTED
        log = "last log lines:\n" + "\n".join(failure.log) if failure.log else None
        story.write(journal.REVERTING, error=str(failure), note=log, blame=failure.blame)
        if back is None:
            silence(self._host, disable=True, patience=self._release.timing.unit_stop_s)
            gone = f"{failure}; there was no verified release to roll back to, so nothing serves"
            story.write(journal.FAILED, error=gone)
            return journal.FAILED
        for left in reversed(range(BACK_TRIES)):
            try:
                self._bring_back(back)
                break
            except Exception as second:
                self._leave_if_going_down()
                if left and isinstance(second, StepFailed) and second.again:
                    again = f"once more, as there is no other release to roll back to: {second}"
                    story.write(journal.REVERTING, note=again)
                    continue
                return self._not_brought_back(back, str(failure), _as_failure(second))
        story.write(
            journal.REVERTED,
            error=str(failure),
            note=f"release {back.id} serves again and is verified{self._steps.unjudged(back)}",
        )
        return journal.REVERTED

    def _bring_back(self, back: Release) -> None:
        steps = self._steps
        steps.stop(self._release, back)
        # Memory is waited for by the unit itself: a power cut meanwhile must boot into the old release.
        steps.switch(back)
        self._ready()
        steps.prove(journal.REVERTING, back, steps.start(back))

    def _runs(self) -> bool:
        state = units.serve_state(self._host.system)
        return state is None or state.active == "active"

    def _not_brought_back(self, back: Release, cause: str, second: StepFailed) -> str:
        state = units.serve_state(self._host.system)
        if second.died:
            # An engine that dies again and again takes the memory of the whole host with it.
            silence(self._host, disable=False, patience=back.timing.unit_stop_s)
            outcome = "nothing serves"
        elif state and state.stopped:
            outcome = "nothing serves"
        elif state and state.active == "active":
            outcome = "the running engine is left running, unverified"
        else:
            # Memory is not free, a disk is full, Docker has no GPU: no engine began, and the unit waits for it.
            outcome = "systemd goes on trying to start it"
        error = f"{cause}; the rollback to {back.id} failed too ({outcome}): {second}"
        self._story.write(journal.FAILED, error=error)
        return journal.FAILED


def _as_failure(fault: Exception) -> StepFailed:
    return fault if isinstance(fault, StepFailed) else StepFailed(f"unexpected {type(fault).__name__}: {fault}")
