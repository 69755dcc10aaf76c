"""The worker of an activation: stop-first, because one GPU can't hold two engines.

It runs in a unit of its own and decides alone. Whatever goes wrong after the old engine was stopped, it goes back to
the release that was verified before, and says which gate did not hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparknode import RESTART, docker, journal, lease, lock, rotation, units
from sparknode import release as releases
from sparknode.chronicle import Chronicle, Tell
from sparknode.errors import Failed, KnownBad, Refused, StepFailed
from sparknode.files import atomic_link
from sparknode.paths import Paths
from sparknode.release import Release
from sparknode.serving import missing_pieces, unit_drift
from sparknode.steps import Steps, silence
from sparknode.system import Host

DONE, REVERTED, FAILED, BUSY = 0, 10, 20, 30
# A verified release whose engine ended on the way back may have been killed, or Docker under it.
BACK_TRIES = 3
EXIT_OF = {journal.COMMITTED: DONE, journal.REVERTED: REVERTED, journal.FAILED: FAILED}


@dataclass(frozen=True)
class Order:
    """Which release to activate, and for whom; without a token the activation takes its lease itself.

    `intent` is kept in the journal: a roll-back, which the next deploy must not undo unasked, or a restart of what
    serves already.
    """

    release: str
    rollout: str
    operator: str
    token: int | None = None
    retry: str | None = None
    intent: str | None = None

    @property
    def restarts(self) -> bool:
        return self.intent == RESTART


def work(host: Host, order: Order, activation: str, tell: Tell) -> int:
    """Activate one staged release, or say why not; the exit code."""
    try:
        # A worker that lives is why nobody else gets a lease; its name for that is busy. What was committed is finished
        # before the lease is asked for: the roll-out that committed it may have given it back already.
        with lock.hold(host.paths):
            finish_commit(host.paths)
        with lease.held_for(host, order.rollout, order.operator, order.token) as held, lock.hold(host.paths):
            release = releases.load(host.paths, order.release)
            cut = journal.open_attempt(journal.read(host.paths))
            if cut and cut.activation == activation:
                story = Chronicle.resume(host, cut, tell)
                return Activation(host, story, release, way_back(host, release)).take_back(cut.state)
            if not order.restarts and is_already_serving(host, release):
                settle(host, tell)
                return DONE
            back = way_back(host, release)
            require_good(host, release, order.retry)
            require_complete(host, release, back)
            # Not before a new activation is sure to begin: what was cut off keeps a boot from trusting what it left.
            settle(host, tell)
            source = host.paths.linked("verified")
            story = Chronicle(
                host, activation, order.rollout, order.operator, release.id, source, tell, held, order.intent
            )
            return Activation(host, story, release, back).run()
    except lock.Busy:
        tell("another activation is under way on this host; wait for it or look at `sparknode status`")
        return BUSY


class Activation:
    """One release's way from staged to committed, or back."""

    def __init__(self, host: Host, story: Chronicle, release: Release, back: Release | None) -> None:
        self._host = host
        self._story = story
        self._release = release
        self._back = back
        self._outgoing = releases.load_linked(host.paths, "current")
        self._steps = Steps(host, story)

    def run(self) -> int:
        going_back = f"goes back to {self._back.id}" if self._back else "has nothing to go back to"
        if self._back is self._release:
            going_back = "is started once more, as it was proven here before"
        try:
            self._story.write(journal.LEASED, note=f"a release that fails {going_back}")
            self._steps.drain(self._outgoing, self._release)
            self._steps.stop(self._outgoing, self._release)
            self._steps.reclaim(self._release)
            self._steps.switch(self._release)
            watch = self._steps.start(self._release)
            self._story.enter(journal.PROBING, "every gate on the running engine")
            self._steps.prove(journal.PROBING, self._release, watch)
            self._steps.soak(self._release, watch)
            return self._commit()
        except StepFailed as failure:
            return self._go_back(failure)
        # A full disk or a fault of our own must not leave the node without an engine.
        except Exception as fault:
            return self._go_back(StepFailed(f"unexpected {type(fault).__name__}: {fault}"))

    def take_back(self, state: str) -> int:
        """Go back after the worker was killed and systemd started it again: what it knew of the engine is lost."""
        self._steps.touched = state not in {journal.LEASED, journal.DRAINING}
        return self._go_back(StepFailed(f"cut off in `{state}`: its worker was killed"))

    def _commit(self) -> int:
        self._story.require_lease()
        note = with_rotation(self._host, f"release {self._release.id} is verified")
        self._story.write(journal.COMMITTED, note=note, load_s=self._steps.load_s)
        point_verified(self._host.paths, self._release.id, self._story.source)
        return DONE

    def _go_back(self, failure: StepFailed) -> int:
        self._story.going_back = True
        if not self._steps.touched:
            error = f"{failure}; nothing was changed, what served before still serves"
            self._story.write(journal.REVERTED, error=error, note=with_rotation(self._host))
            return REVERTED
        log = "last log lines:\n" + "\n".join(failure.log) if failure.log else None
        self._story.write(journal.REVERTING, error=str(failure), note=log, blame=failure.blame)
        if self._back is None:
            silence(self._host, disable=True, patience=self._release.timing.unit_stop_s)
            self._story.write(
                journal.FAILED,
                error=f"{failure}; there was no verified release to go back to, so nothing serves",
            )
            return FAILED
        return bring_back(self._steps, self._story, self._back, str(failure), stop=self._release, host=self._host)


def bring_back(steps: Steps, story: Chronicle, back: Release, cause: str, *, stop: Release | None, host: Host) -> int:
    """Start the verified release and prove it. `stop` names what has to go first; at boot nothing has."""
    for left in reversed(range(BACK_TRIES)):
        try:
            if stop:
                steps.stop(stop, back)
                # The files go back before memory is waited for: a power cut meanwhile must boot into the old release.
                steps.switch(back)
                steps.reclaim(back)
            watch = steps.start(back)
            steps.prove(journal.REVERTING, back, watch)
            break
        except Exception as second:
            if left and isinstance(second, StepFailed) and second.died:
                story.write(journal.REVERTING, note=f"once more, as nothing else is left to go back to: {second}")
                stop = stop or back
                continue
            return _not_brought_back(story, back, cause, second, host)
    story.write(
        journal.REVERTED, error=cause, note=with_rotation(host, f"release {back.id} serves again and is proven")
    )
    return REVERTED


def _not_brought_back(story: Chronicle, back: Release, cause: str, second: Exception, host: Host) -> int:
    # A fault of our own says nothing about the engine, so that is left as it is.
    alive = not isinstance(second, StepFailed) or second.alive
    if not alive:
        silence(host, disable=False, patience=back.timing.unit_stop_s)
    outcome = "what runs is left running, unproven" if alive else "nothing serves"
    story.write(journal.FAILED, error=f"{cause}; going back to {back.id} failed too ({outcome}): {second}")
    return FAILED


def with_rotation(host: Host, note: str | None = None) -> str | None:
    """What is said of an outcome, and of this host's way back into rotation, which comes just before it.

    So the line that ends an activation tells whether requests come again, and a power cut before it repeats the proof.
    """
    return "; ".join(text for text in (note, rotation.give_back(host)) if text) or None


def point_verified(paths: Paths, release_id: str, source: str | None) -> None:
    """`verified` names what was proven last, `previous` what was proven before that."""
    if source and source != release_id:
        atomic_link(paths.link("previous"), f"releases/{source}")
    atomic_link(paths.link("verified"), f"releases/{release_id}")


def finish_commit(paths: Paths) -> bool:
    """A power cut between the line `committed` and its link: the line is the promise, so the link follows."""
    last = journal.last_attempt(journal.read(paths))
    if last is None or last.state != journal.COMMITTED or paths.linked("verified") == last.release:
        return False
    source = last.last.get("from")
    point_verified(paths, last.release, source if isinstance(source, str) else None)
    return True


def settle(host: Host, tell: Tell) -> None:
    """Close what an activation before this one left open when its worker died."""
    last = journal.last_attempt(journal.read(host.paths))
    if last and not last.ended:
        story = Chronicle.resume(host, last, tell)
        story.write(
            journal.FAILED,
            error=f"cut off in `{last.state}`: its worker died; the next activation takes over",
        )


def is_already_serving(host: Host, release: Release) -> bool:
    """Is this release current, verified and what really runs? When nobody can tell, nothing is touched."""
    if not host.paths.linked("current") == host.paths.linked("verified") == release.id:
        return False
    found, state = docker.container(host.system, release.container.name), units.serve_state(host.system)
    if found.error:
        raise Failed(
            f"Docker did not say what runs here ({found.error}); nothing was changed: mend Docker, then try again"
        )
    if state is None:
        raise Failed("systemd did not say how the serving unit stands; nothing was changed: try again")
    return not unit_drift(host.paths, release, state) + docker.drift(host.system, release, found)


def way_back(host: Host, release: Release) -> Release | None:
    """The release to go back to, also when it is the one that is being started again: a second start often serves."""
    verified = host.paths.linked("verified")
    return release if verified == release.id else releases.load(host.paths, verified) if verified else None


def require_good(host: Host, release: Release, retry: str | None) -> None:
    """Refuse a release that failed here by its own fault, unless it is named to be tried again."""
    bad = journal.known_bad(journal.read(host.paths)).get(release.id)
    if bad and retry != release.id:
        raise KnownBad(
            f"release {release.id} failed gate {bad['gate']} on this host at {bad['t']}: {bad['error']}; deploy "
            f"another release, or try it again with --retry-release {release.id}"
        )


def require_complete(host: Host, release: Release, back: Release | None) -> None:
    """Refuse before anything is stopped when a start, or the way back from it, would lack something."""
    for one in (release, back):
        problems = missing_pieces(host, one) if one else []
        if one and problems:
            role = "release" if one is release else "the release to go back to,"
            raise Refused(f"{role} {one.id} is not complete here: {'; '.join(problems)}; stage it again")
