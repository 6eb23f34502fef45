"""What several processes must know of one another before they go the same way.

They talk through the key-value store of JAX's coordination service, which process 0 runs: no device takes part, so that
any thread may ask. All processes ask the same questions, each in the same order.
"""

import collections
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from lm.errors import InputError, UsageError, shown

WEEK_MS = 7 * 24 * 3_600_000
"""No answer comes too late: JAX ends all processes when one of them dies."""
SHOWN = 3
"""Differences that one message lists."""
ROUNDS: collections.defaultdict[str, Iterator[int]] = collections.defaultdict(itertools.count)


def settle[T](question: str, mine: Any, conclude: Callable[[list[Any]], T]) -> T:
    """What process 0 concludes from what each process says (`mine`, in the order of the processes), told to all.

    What is said and concluded are JSON's types. An error of `conclude` ends the question in all: process 0 raises it,
    the others an InputError that tells it. `question` is its name: one that is asked from two threads has two.
    """
    if jax.process_count() == 1:
        return conclude([mine])
    store, index = key_value_store(), jax.process_index()
    number = next(ROUNDS[question])
    place = f"gristmill/{question}/{number}"
    store.key_value_set(f"{place}/{index}", json.dumps(mine))
    if index > 0:
        told = json.loads(store.blocking_key_value_get(f"{place}/concluded", WEEK_MS))
        if "error" in told:
            raise (UsageError if told["usage"] else InputError)(told["error"])
        return told["result"]
    keys = [f"{place}/{process}" for process in range(jax.process_count())]
    said = [json.loads(store.blocking_key_value_get(key, WEEK_MS)) for key in keys]
    store.key_value_delete(f"gristmill/{question}/{number - 1}/")  # all have asked again: that answer was read
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
    """What each process says, in their order, told to process 0 alone; elsewhere an empty list. For what would be too
    much to tell to all."""
    if jax.process_count() == 1:
        return [mine]
    store, place = key_value_store(), f"gristmill/{question}/{next(ROUNDS[question])}"
    if jax.process_index() > 0:
        store.key_value_set(f"{place}/{jax.process_index()}", json.dumps(mine))
        return []
    keys = [f"{place}/{process}" for process in range(1, jax.process_count())]
    said = [mine, *(json.loads(store.blocking_key_value_get(key, WEEK_MS)) for key in keys)]
    store.key_value_delete(f"{place}/")
    return said


def key_value_store() -> Any:
    """JAX's own client, which it does not export; Orbax takes it from there too."""
    from jax._src import distributed

    return distributed.global_state.client


def fail_together(question: str, error: Exception | None) -> None:
    """Raises where a process has an error: its own one there, elsewhere an InputError that tells the first of them."""
    said = settle(question, None if error is None else str(error), list)
    if error is not None:
        raise error
    for process, text in enumerate(said):
        if text is not None:
            raise InputError(f"process {process}: {text}")


def agree(facts: Mapping[str, Any]) -> None:
    """Raise UsageError in all processes unless `facts` (JSON) are the same in all: the message has the first names that
    differ, with both values and the index of the process."""
    if difference := settle("facts", dict(facts), first_difference):
        raise UsageError(difference)


def first_difference(said: list[dict[str, Any]]) -> str:
    """What the first process that differs from process 0 has, and what process 0 has; "" if all are the same."""
    for process, theirs in enumerate(said):
        names = [name for name in said[0] | theirs if theirs.get(name) != said[0].get(name)]
        if names:
            values = [(name, shown(theirs.get(name)), shown(said[0].get(name))) for name in names[:SHOWN]]
            each = [f"{name} is {its}, but {other} in process 0" for name, its, other in values]
            more = [f"{len(names) - SHOWN} more differ"] if len(names) > SHOWN else []
            return f"process {process}: {'; '.join(each + more)}. All processes of a run must have the same."
    return ""
