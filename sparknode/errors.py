"""The ways in which work ends early. Every message says what was found, what was expected and what to do next."""


class Stopped(Exception):
    """A command ends with this exit code and one line."""

    code = 1


class Refused(Stopped):
    """The input can't be used; nothing was changed."""

    code = 2


class Failed(Stopped):
    """The work could not be done."""


class LeaseHeld(Stopped):
    """Another roll-out works on this host."""

    code = 31


class KnownBad(Stopped):
    """This release failed its gates here before."""

    code = 32


class StepFailed(Exception):
    """A step of an activation did not hold; `alive` tells whether an engine still runs.

    `blame` names the gate that the release itself failed, where it was not the host or the memory. `died` marks an
    engine that ended, for another reason than memory.
    """

    def __init__(
        self,
        message: str,
        log: tuple[str, ...] = (),
        *,
        alive: bool = False,
        blame: str | None = None,
        died: bool = False,
    ) -> None:
        super().__init__(message)
        self.log = log
        self.alive = alive
        self.blame = blame
        self.died = died
