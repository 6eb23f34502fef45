"""Command-line scripts: parse the config, call lm or data_prep."""

import os
import sys
from pathlib import Path
from types import TracebackType


def without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A sys.excepthook: report Ctrl-C during imports in one line, and other errors with their traceback."""
    if issubclass(kind, KeyboardInterrupt):
        print("\ninterrupted; nothing was begun.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.stdout is None:  # closed by the shell (>&-): discard output, as print does
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
if sys.argv[:1] == ["-m"]:  # `python -m launch.NAME`, before the module is found
    sys.excepthook = without_traceback
    # Python searches the working directory first, which may have folders named like ours, such as lm/: put ours first.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
