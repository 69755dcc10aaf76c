"""The ways in which work ends early. Every message says what was found, what was expected and what to do next."""


class Stopped(Exception):
    """A command ends with this exit code and one line."""

    code = 1


class Refused(Stopped):
    """The input can't be used; nothing was changed."""

    code = 2


class Failed(Stopped):
    """The work could not be done."""


class Busy(Stopped):
    """Another process holds the lock."""

    code = 30


class LeaseHeld(Stopped):
    """Another rollout works on this host."""

    code = 31


class KnownBad(Stopped):
    """This release failed its gates here before."""

    code = 32


class StepFailed(Stopped):
    """A step of an activation did not hold.

    `blame` names the gate that the release itself failed, where it was not the host or the memory. `died` marks an
    engine that ended, `again` one for which another start may go better.
    """

    def __init__(
        self,
        message: str,
        log: tuple[str, ...] = (),
        *,
        blame: str | None = None,
        died: bool = False,
        again: bool = False,
    ) -> None:
        super().__init__(message)
        self.log = log
        self.blame = blame
        self.died = died
        self.again = again
