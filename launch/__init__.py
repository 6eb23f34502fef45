"""Thin scripts: parse the config, call lm or data_prep."""

import os
import sys
from pathlib import Path
from types import TracebackType


def without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while a script is still being imported ends it with a line; afterwards launch.stages.command says more."""
    if issubclass(kind, KeyboardInterrupt):
        print("\ninterrupted; nothing was begun.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.stdout is None:  # closed by the shell (>&-): what is printed goes nowhere, as print itself has it
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
if sys.argv[:1] == ["-m"]:  # of `python -m launch.NAME`, while it looks for the module
    sys.excepthook = without_traceback
    # Python looks in the working directory first, whose folders may have names as ours, such as lm/: ours come before.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
