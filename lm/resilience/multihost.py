"""What several processes must know of one another before they go the same way.

All of them ask, from their main threads and in the same order; where there is one process, nobody need ask.
"""

import json
from typing import Any

import numpy as np
from jax.experimental import multihost_utils


def all_agree(mine: bool) -> bool:
    """Whether all processes say True."""
    return bool(np.all(multihost_utils.process_allgather(np.array(mine))))


def agreed(found: tuple[int | None, dict[str, Any]]) -> tuple[int | None, dict[str, Any]]:
    """What process 0 found."""
    data = np.zeros(2**16, np.uint8)
    text = json.dumps(found).encode()
    data[: len(text)] = np.frombuffer(text, np.uint8)
    step, about = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(data))).rstrip(b"\0"))
    return step, about
