"""Errors that users can resolve. Launch scripts print them without a traceback; any other exception is a bug in this
program."""

from typing import TextIO

SHOWN_CHARACTERS = 200
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""Errors that parsing raises if a file has another structure than expected."""


def shown(value: object, quotes: bool = True) -> str:
    """Return the repr of `value` for a message (a string only without control characters, if not `quotes`), shortened
    if it is long."""
    text = repr(value) if quotes or not isinstance(value, str) else for_terminal(value)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    length = len(value) if isinstance(value, str) else len(text)
    return f"{text[:SHOWN_CHARACTERS]}... ({length:,} characters)"


def for_terminal(text: str) -> str:
    """Return untrusted text with control characters, which a terminal would obey, replaced by U+FFFD."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_untrusted(text: str, file: TextIO | None = None) -> None:
    """Print text that may contain names or texts from files, without their control characters."""
    print(for_terminal(text), file=file, flush=True)


def network_reason(error: BaseException) -> str:
    """Return in a few words why a request failed, such as "no answer in time", from nested exceptions of libraries."""
    chain = [error]
    for one in chain:  # grows during the iteration
        inner = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        chain += [other for other in inner if isinstance(other, BaseException) and other not in chain]
    names = [type(one).__name__ for one in chain]
    cause = next((one for one in reversed(chain) if isinstance(one, OSError) and one.strerror), None)
    response = getattr(error, "response", None)
    if response is not None:
        reason = f"the server answers {response.status_code} {response.reason}"
    elif any("CERTIFICATE_VERIFY_FAILED" in str(one) for one in chain):
        reason = "the server's certificate is not trusted"
    elif any("NameResolution" in name or name == "gaierror" for name in names):
        reason = "the host name cannot be resolved (is there a network?)"
    elif any("Timeout" in name for name in names):
        reason = "no answer in time"
    elif "IncompleteRead" in names:
        reason = "the connection ended too early"
    elif cause is not None:
        reason = str(cause.strerror)[:1].lower() + str(cause.strerror)[1:]
    else:
        reason = shown(f"{names[-1]}: {chain[-1]}", quotes=False)
    return f"the proxy cannot be reached: {reason}" if any("ProxyError" in name for name in names) else reason


class InputError(Exception):
    """Problem with a file, package, network or disk; the message has the remedy. The process exits with `exit_code`."""

    exit_code = 1


class UsageError(InputError):
    """The command or config asks for something impossible: a wrong key, type or combination."""

    exit_code = 2


class PeerError(InputError):
    """Another process of the run failed or was lost. Restart all: the run resumes from its last checkpoint."""

    exit_code = 3


class AbsentPeerError(PeerError):
    """Another process of the run did not join in time. Start it; a supervisor waits for it."""

    exit_code = 4


class Stopped(Exception):  # noqa: N818  (not an error)
    """The run was asked to stop and has saved its state; the same command resumes it."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
