"""Errors that users can resolve. Launch scripts print them without a traceback; any other exception is a bug in this
program."""

import errno
import re
import resource
import sys
from collections.abc import Iterator

SHOWN_CHARACTERS = 200
LIBRARY_CHARACTERS = 300
"""Maximum characters of a library's error text in a message."""
SHORTAGES = {
    "memory": (
        "RLIMIT_AS", (errno.ENOMEM,), "failed to map segment|cannot allocate memory|std::bad_alloc|out of memory"
    ),
    "threads": ("RLIMIT_NPROC", (), "can't start new thread|thread creation failed|unable to start thread"),
    "open files": ("RLIMIT_NOFILE", (errno.EMFILE, errno.ENFILE), "too many open files"),
}  # fmt: skip
"""{resource: (its limit, numbers of OSErrors, pattern in other errors' texts)} of a process that has run out of it."""


def shown(value: object, quotes: bool = True) -> str:
    """Return the repr of `value` for a message (a string as it is, if not `quotes`), shortened if it is long."""
    text = repr(value) if quotes or not isinstance(value, str) else value
    if len(text) <= SHOWN_CHARACTERS:
        return text
    length = len(value) if isinstance(value, str) else len(text)
    return f"{text[:SHOWN_CHARACTERS]}... ({length:,} characters)"


def for_terminal(text: str) -> str:
    """Return untrusted text with control characters, which a terminal would obey, replaced by U+FFFD."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


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


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that caused it, up to the first InputError."""
    while error is not None and not isinstance(error, InputError):
        yield error
        error = error.__cause__ or error.__context__


def shortage(error: BaseException | None) -> str:
    """Return in a sentence or two which resource of the process has run out, by an error or its causes, with the
    limits; "" if another reason is possible: a MemoryError without a limit may be due to a damaged file."""
    limits = {name: resource.getrlimit(getattr(resource, limit))[0] for name, (limit, *_) in SHORTAGES.items()}
    limit_of = lambda name: "unlimited" if limits[name] == resource.RLIM_INFINITY else f"{limits[name]:,}"
    for one in chain_of(error):
        for name, (_, numbers, pattern) in SHORTAGES.items():
            is_number = isinstance(one, OSError) and one.errno in numbers
            is_text = isinstance(one, MemoryError | RuntimeError | ImportError) and re.search(pattern, str(one), re.I)
            is_memory = isinstance(one, MemoryError) and name == "memory" and limits[name] != resource.RLIM_INFINITY
            if is_number or is_text or is_memory:
                return (
                    f"This process has no {name} left. Its limits: {limit_of('memory')} bytes of address space "
                    f"(ulimit -v), {limit_of('threads')} threads (-u), {limit_of('open files')} open files (-n). Raise "
                    "them, or end other processes."
                )
    return ""


class InputError(Exception):
    """Problem with a file, package, network or disk; the message has the remedy. The process exits with `exit_code`."""

    exit_code = 1

    def __init__(self, message: str):
        """In `message`, shorten the text of the library's error that is being handled. If that error is a `shortage`,
        say so first, without the remedy for a damaged file."""
        error = sys.exception()
        for one in chain_of(error):
            for text in (str(one), repr(one), " ".join(str(one).split())):
                if len(text) > LIBRARY_CHARACTERS:
                    message = message.replace(text, f"{text[:LIBRARY_CHARACTERS]}... ({len(text):,} characters)")
        if reason := shortage(error):
            for text in map(str, chain_of(error)):
                message = "".join(message.partition(text)[:2]) if text else message
            message = f"{reason} No file is at fault: {message}"
        super().__init__(message)


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
