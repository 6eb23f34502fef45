"""A function called in a process of its own, for what must not happen in this one.

JAX starts threads, and a process with threads must not fork; the stages of the data fork their workers. So whatever
needs JAX before they have run is asked in another process, which has ended when they begin.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lm.errors import InputError
from lm.trusted_code import inherit

ROOT = Path(__file__).parents[1]


def in_own_process[**P, Result](function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """What `function`, of a module, returns in a new process; all that goes in and out is pickled.

    Raises the InputError that it raises there, and InputError with the last line of its output where that process fails
    otherwise.
    """
    paths = [str(ROOT), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=pickle.dumps((function, args, kwargs)),
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"A check before training failed: its process ended with code {done.returncode} and printed: {said[-1]}. "
            "If JAX cannot start here, repair its installation, or choose other devices with JAX_PLATFORMS, which is "
            f"{platforms!r}: cpu works everywhere."
        )
    result, error = pickle.loads(done.stdout)
    if error is not None:
        raise error
    return result


def main() -> None:
    """Calls what stdin has, and writes (result, error) to stdout, to which nothing else is printed."""
    answer = os.dup(1)
    os.dup2(2, 1)
    inherit()  # the function may name code of the user's config
    function, args, kwargs = pickle.load(sys.stdin.buffer)
    try:
        pair = function(*args, **kwargs), None
    except InputError as error:
        pair = None, error
    with os.fdopen(answer, "wb") as file:
        pickle.dump(pair, file)


if __name__ == "__main__":
    main()
