"""Report errors of Orbax and TensorStore, such as full disks and damaged files, once, and as one error for the user."""

import contextlib
import errno
import logging
import os
import re
import traceback
from collections.abc import Generator

from lm.errors import InputError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
OTHER = "Use another checkpoint."
FREE_SPACE = "Free space there or repair the disk: older checkpoints are complete."


@contextlib.contextmanager
def readable_errors(place: object, verb: str, remedy: str) -> Generator[None]:
    """Convert any error of Orbax and TensorStore in the block to an InputError: "`place` cannot be `verb`: reason.
    `remedy`", with a verb such as "read" or "written"."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split())
        # TensorStore reports it too, after a thousand other characters.
        of_the_disk = re.search(rf"({'|'.join(map(os.strerror, DISK_ERRORS))})( \([^)]*free\))?", cause)
        first: BaseException = error  # TensorStore's error names the array; Orbax wraps it in the whole spec
        while first.__cause__ is not None:
            first = first.__cause__
        reason = of_the_disk[0] if of_the_disk else f"{type(first).__name__}: {' '.join(str(first).split())[:300]}"
        raise InputError(f"{place} cannot be {verb}: {reason}. {remedy}") from error


def not_by_orbax(record: logging.LogRecord) -> bool:
    """Return False, as a log filter, for errors that Orbax logs for each array and also raises."""
    if not record.exc_info:
        return True
    _, error, trace = record.exc_info
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    return f"{os.sep}orbax{os.sep}" not in "".join(frames) and ".orbax-checkpoint-tmp" not in str(error)
