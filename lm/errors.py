"""The two kinds of error a user can mend. Launch scripts print them without a traceback; anything else is a bug of
ours."""

SHOWN_CHARACTERS = 200


def shown(value: object, quotes: bool = True) -> str:
    """`value` as a message shows it: cut, with its length, where it is long."""
    text = repr(value) if quotes or not isinstance(value, str) else value
    if len(text) <= SHOWN_CHARACTERS:
        return text
    length = len(value) if isinstance(value, str) else len(text)
    return f"{text[:SHOWN_CHARACTERS]}... ({length:,} characters)"


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
