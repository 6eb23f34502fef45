"""The two kinds of error a user can mend. Launch scripts print them without a traceback; anything else is a bug of
ours."""


class InputError(Exception):
    """The outside world is not as needed: a file, a package, the network, a disk. The message says what to do.

    The process exits with `exit_code`.
    """

    exit_code = 1


class UsageError(InputError):
    """The command or the config asks for what cannot be: a wrong key, type or combination. Both values are in the
    message."""

    exit_code = 2


class Stopped(Exception):  # noqa: N818  (it went as it should)
    """The run was asked to end, and has saved: the same command goes on from there."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
