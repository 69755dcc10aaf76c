"""The two ways a command ends early. Every message says what was found, what was expected and what to do next."""


class Refused(Exception):
    """The input can't be used; nothing was changed (exit 2)."""


class Failed(Exception):
    """The work could not be done (exit 1)."""
