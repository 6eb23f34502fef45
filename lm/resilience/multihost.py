"""Messages between the processes of a run, so that all take the same branch.

They use the key-value store of JAX's coordination service, which process 0 runs. No device is involved, so any thread
may call them. All processes must make the same calls in the same order.
"""

import collections
import itertools
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lm.errors import InputError, UsageError, shown

WEEK_MS = 7 * 24 * 3_600_000
"""Timeout in milliseconds; it is never reached, because JAX ends all processes if one of them dies."""
SHOWN = 3
"""Number of differences listed in a message."""
ROUNDS: collections.defaultdict[str, Iterator[int]] = collections.defaultdict(itertools.count)


def settle[T](question: str, mine: Any, conclude: Callable[[list[Any]], T]) -> T:
    """Let process 0 decide for all: it gathers the value `mine` of each process and computes conclude(values in the
    order of processes), which all processes return.

    Values and results are JSON types. If `conclude` raises, process 0 raises the same error, and the others an
    InputError (or UsageError) with its message. `question` names the exchange; calls from different threads need
    different names.
    """
    store, index, count = coordination()
    if count == 1:
        return conclude([mine])
    number = next(ROUNDS[question])
    place = f"gristmill/{question}/{number}"
    store.key_value_set(f"{place}/{index}", json.dumps(mine))
    if index > 0:
        told = json.loads(store.blocking_key_value_get(f"{place}/concluded", WEEK_MS))
        if "error" in told:
            raise (UsageError if told["usage"] else InputError)(told["error"])
        return told["result"]
    keys = [f"{place}/{process}" for process in range(count)]
    said = [json.loads(store.blocking_key_value_get(key, WEEK_MS)) for key in keys]
    store.key_value_delete(f"gristmill/{question}/{number - 1}/")  # all have called again, so all have read it
    told: dict[str, Any] = {"error": "process 0 was interrupted", "usage": False}
    try:
        told = {"result": conclude(said)}
    except Exception as error:
        told = {"error": f"process 0: {error}", "usage": isinstance(error, UsageError)}
        raise
    finally:
        store.key_value_set(f"{place}/concluded", json.dumps(told))
    return told["result"]


def collect(question: str, mine: Any) -> list[Any]:
    """Gather the value `mine` of each process. Process 0 returns all values in order; other processes return []. Use it
    instead of `settle` if the values are too large to send to all."""
    store, index, count = coordination()
    if count == 1:
        return [mine]
    place = f"gristmill/{question}/{next(ROUNDS[question])}"
    if index > 0:
        store.key_value_set(f"{place}/{index}", json.dumps(mine))
        return []
    keys = [f"{place}/{process}" for process in range(1, count)]
    said = [mine, *(json.loads(store.blocking_key_value_get(key, WEEK_MS)) for key in keys)]
    store.key_value_delete(f"{place}/")
    return said


def coordination() -> tuple[Any, int, int]:
    """Return (client of JAX's coordination service, None for one process; index of this process; number of processes).

    JAX does not export the client; Orbax imports it in the same way. Unlike `jax.process_index`, this starts no
    devices, for which processes with different settings could wait forever.
    """
    from jax._src import distributed

    state = distributed.global_state
    return state.client, state.process_id, state.num_processes


def fail_together(question: str, error: Exception | None) -> None:
    """If any process has an `error`, raise an error in all processes: its own `error` in a process that has one,
    elsewhere an InputError with the message of the first process that has one."""
    said = settle(question, None if error is None else str(error), list)
    if error is not None:
        raise error
    for process, text in enumerate(said):
        if text is not None:
            raise InputError(f"process {process}: {text}")


def agree(facts: Mapping[str, Any]) -> None:
    """Raise UsageError in all processes unless `facts`, {name: JSON value}, are equal in all. The message lists the
    first differences with both values, and the index and host of the process."""
    if difference := settle("facts", [socket.gethostname(), dict(facts)], first_difference):
        raise UsageError(difference)


def first_difference(said: list[Any]) -> str:
    """Describe the difference between process 0 and the first process with other facts; "" if there is no such process.
    said[i] is [host, facts] of process i."""
    first = said[0][1]
    for process, (host, theirs) in enumerate(said):
        if names := [name for name in first | theirs if theirs.get(name) != first.get(name)]:
            each = [
                f"{name} is {shown(theirs.get(name))}, but {shown(first.get(name))} in process 0"
                for name in names[:SHOWN]
            ]
            more = [f"{len(names) - SHOWN} more differ"] if len(names) > SHOWN else []
            return (
                f"process {process} on {host}: {'; '.join(each + more)}. All processes of a run must have the same; "
                f"process 0 is on {said[0][0]}."
            )
    return ""
