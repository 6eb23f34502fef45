"""Call a function in a separate process.

JAX starts threads, and a process with threads must not fork, as data stages do to start their workers. So whatever
needs JAX before these stages runs in another process, which ends before they begin.
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
    """Call a module-level `function` in a new process and return its result. Arguments and result are pickled. Raises
    the InputError that `function` raises, or InputError with the last line of the output if the process fails."""
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
    """Call the function pickled on stdin, and write (result, error) pickled to stdout. Other output goes to stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    inherit()  # the function may refer to code of the user's config
    function, args, kwargs = pickle.load(sys.stdin.buffer)
    try:
        pair = function(*args, **kwargs), None
    except InputError as error:
        pair = None, error
    with os.fdopen(answer, "wb") as file:
        pickle.dump(pair, file)


if __name__ == "__main__":
    main()
