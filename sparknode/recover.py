"""After a boot: what a power cut left half done is finished or taken back.

`recover` runs before the serving unit starts and only puts files and links right, which takes a moment. The proof that
the old release serves takes as long as its engine loads, so it runs afterwards in a unit of its own (`--finish`).
"""

from __future__ import annotations

from sparknode import journal, lease, lock, rotation
from sparknode import release as releases
from sparknode.activate import BUSY, DONE, bring_back, finish_commit
from sparknode.chronicle import Chronicle, Tell
from sparknode.errors import Failed, StepFailed
from sparknode.frontend import SPAWN_S, unit_argv
from sparknode.journal import Attempt
from sparknode.release import Release
from sparknode.steps import Steps, install, silence
from sparknode.system import Host


def recover(host: Host, tell: Tell) -> int:
    """Put right what was cut off; the exit code."""
    try:
        with lock.hold(host.paths):
            back = _put_right(host, tell)
    except lock.Busy:
        tell("an activation is under way on this host; it ends by itself, so nothing is recovered")
        return DONE
    # Not under the lock, which the proof takes for itself.
    return _order_proof(host, back) if back else DONE


def _put_right(host: Host, tell: Tell) -> Release | None:
    """Finish or take back what was cut off; the release whose proof is due, if one was put back."""
    lease.drop_own(host)
    last = journal.last_attempt(journal.read(host.paths))
    if finish_commit(host.paths):
        tell("the last activation was committed; its `verified` link was missing and is in place now")
        return None
    current, verified = host.paths.linked("current"), host.paths.linked("verified")
    if last is None or (last.ended and (verified is None or current == verified)):
        tell("no activation was cut off; nothing to recover")
        return None
    story = Chronicle.resume(host, last, tell)
    # A worker that died and was followed by another one leaves its files behind: only the links tell what would start.
    # A host that is out of rotation is proven before it gets requests again.
    if last.state in journal.UNTOUCHED and current == verified and not rotation.is_out(host):
        _leave(host, story, last)
        return None
    return _restore(host, story, last)


def _leave(host: Host, story: Chronicle, last: Attempt) -> None:
    """Nothing was switched yet, so the unit starts what it started before."""
    current = host.paths.linked("current")
    if current:
        story.write(
            journal.REVERTED,
            error=f"cut off in `{last.state}`, before anything was switched",
            note=f"release {current} serves on; its gates were not run again",
        )
    else:
        story.write(journal.FAILED, error=f"cut off in `{last.state}`; nothing served here before: activate again")


def _restore(host: Host, story: Chronicle, last: Attempt) -> Release | None:
    cause = f"cut off in `{last.state}` by a power cut or a reboot"
    if last.ended:
        cause = f"after the last activation {last.state}, a release was current that is not the verified one"
    story.going_back = True
    back = releases.load_linked(host.paths, "verified")
    if back is None:
        story.write(journal.REVERTING, error=cause)
        silence(host, disable=True, patience=None)
        story.write(journal.FAILED, error=f"{cause}; there was no verified release to go back to, so nothing serves")
        return None
    story.write(journal.REVERTING, error=cause, note=f"back to release {back.id}; its gates run once it serves")
    try:
        install(host, back)
    except (OSError, StepFailed) as problem:
        raise Failed(f"release {back.id} could not be put back: {problem}; activate {back.id} by hand") from problem
    return back


def _order_proof(host: Host, back: Release) -> int:
    done = host.system.run(unit_argv(host.paths, ["recover", "--finish"], "--no-block"), SPAWN_S)
    if not done.ok:
        raise Failed(f"release {back.id} is put back and starts, but its proof could not: {done.why}; run it by hand")
    return DONE


def finish(host: Host, tell: Tell) -> int:
    """Prove the release that `recover` put back; the exit code."""
    try:
        with lock.hold(host.paths):
            last = journal.open_attempt(journal.read(host.paths))
            back = releases.load_linked(host.paths, "verified")
            if last is None or last.state != journal.REVERTING or back is None:
                tell("nothing was put back; nothing to prove")
                return DONE
            story = Chronicle.resume(host, last, tell)
            story.going_back = True
            cause = next((str(record["error"]) for record in reversed(last.records) if "error" in record), "cut off")
            return bring_back(Steps(host, story), story, back, cause, stop=None, host=host)
    except lock.Busy:
        tell("an activation is under way on this host; it decides for itself")
        return BUSY
