"""Use your own function as a filter: one file with the function, one line in the config.

    # shouting.py
    def share_of_capitals(text: str) -> float:
        words = text.split()
        return sum(word.isupper() for word in words) / max(len(words), 1)

    # config.py: the line
    documents=recipe.documents(DUMP, URLS, keep_if(share_of_capitals, at_most=0.3))

The source of the function's file is stored in the config. So workers on other machines, and later commands on the run
folder, do not need your file, and a changed file is a different filter.
"""

import functools
import inspect
import math
import types
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, Literal

from data_prep.config.filters import Filter, Rule, Signal
from data_prep.text.passage import Passage
from lm.errors import UsageError, shown
from lm.fields import measured

Side = Literal["below", "above"]


@dataclass(frozen=True)
class FunctionFilter(Filter):
    """Drop texts by the value that the user's function returns for them; made by `keep_if`."""

    limit: float
    """Threshold: texts are dropped if the value is below it (filter below_NAME) or above it (above_NAME)."""
    function: str = measured()
    """Name of the function in `source`: it takes a text and returns a number, or True to keep it."""
    source: str = measured()
    """Contents of the file with the function; workers execute it before measuring their first text."""

    def check_values(self):
        if not math.isfinite(self.limit):
            raise UsageError(f"{self.path()}.limit is {self.limit}; give a finite number.")

    def measure(self, passage: Passage) -> list[float]:
        value = loaded(self.source, self.function)(passage.text)
        if not isinstance(value, int | float) or math.isnan(value):
            raise UsageError(
                f"The function {self.function} of the filter {self.name} returned {shown(value)} for a text of "
                f"{len(passage.text)} characters. It must return a number, True or False."
            )
        return [float(value)]


def keep_if(
    function: Callable[[str], float | bool],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    name: str | None = None,
) -> Filter:
    """Return a filter that drops texts for which `function` returns False, or a number below `at_least` or above
    `at_most`.

    `name` (default: the function's name) is the name of the step, section and signal; the reason is NAME_below (for
    False too) or NAME_above, the option for the limit --documents.NAME.limit. The function must be defined at the top
    level of a file. It gets one non-empty text at a time, and must always return the same value for a text. Raises
    UsageError if workers could not load it.
    """
    if at_least is not None and at_most is not None:
        raise UsageError(
            f"keep_if: at_least = {at_least} and at_most = {at_most} are both given. Give one; use two filters "
            "for both."
        )
    where = getattr(function, "__qualname__", "")
    if not isinstance(function, types.FunctionType) or "<" in where or "." in where:
        raise UsageError(
            f"keep_if: {shown(function)} is not a top-level function of a file, and could not be sent to workers. "
            "Write it as def NAME(text): ... in its own file."
        )
    try:
        source = Path(inspect.getsourcefile(function) or "").read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"keep_if: the file of {where} cannot be read: {error}. Define the function in a file."
        ) from error
    loaded(source, where)  # fail here, not in a worker
    called = name or where
    if at_most is not None:
        return filter_class(called, "above")(float(at_most), where, source)
    return filter_class(called, "below")(1.0 if at_least is None else float(at_least), where, source)


@functools.lru_cache(maxsize=64)
def loaded(source: str, function: str) -> Callable[[str], Any]:
    """Return the function called `function` that is defined in `source`, the contents of a file. Raises UsageError if
    the source cannot be run or does not define it."""
    module = types.ModuleType("own_filter")
    try:
        exec(compile(source, f"<file of the filter function {function}>", "exec"), module.__dict__)
    except Exception as error:
        raise UsageError(
            f"The file of the filter function {function} cannot be run by itself: {error!r}. Import only what workers "
            "have installed, and nothing from files next to it."
        ) from error
    found = getattr(module, function, None)
    if not callable(found):
        raise UsageError(f"The file of the filter does not define its function {function}. Define it at the top level.")
    return found


@functools.cache
def filter_class(name: str, drops: Side) -> Any:
    """Return the class of a FunctionFilter called `name` that drops values on the given side of its limit. Raises
    UsageError if `name` is not an identifier."""
    if not name.isidentifier():
        raise UsageError(f"keep_if: name is {name!r}; it must be a Python identifier, such as max_length.")
    body = {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "summary": f"A user-defined filter: the function {name}.",
        "signals": (
            Signal(f"{name}_value", name.replace("_", " ").capitalize(), f"The value of {name} for the text."),
        ),
        "rules": (Rule(f"{name}_{drops}", f"{name}_value", drops, "limit"),),
        "__doc__": FunctionFilter.__doc__,
    }
    made = make_dataclass(f"{drops}_{name}", [], bases=(FunctionFilter,), namespace=body, frozen=True)
    made.__module__ = __name__  # `__getattr__` finds it there, for pickles and config.json
    made.__qualname__ = f"{drops}_{name}"
    return made


def __getattr__(attribute: str) -> Any:
    """Return the filter class below_NAME or above_NAME of the user's function NAME; pickles and config.json look it up
    here."""
    drops, _, name = attribute.partition("_")
    if drops in ("below", "above") and name.isidentifier():
        return filter_class(name, drops)
    raise AttributeError(f"module {__name__} has no attribute {attribute}")
