"""Inspect jaxprs, before XLA changes them."""

from collections.abc import Iterator
from typing import Any


def equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """All equations of a jaxpr, including nested ones, and how often each is computed: by the lengths of the enclosing
    scans."""
    for equation in jaxpr.eqns:
        yield equation, times
        turns = times * equation.params["length"] if equation.primitive.name == "scan" else times
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if hasattr(inner := getattr(inner, "jaxpr", inner), "eqns"):
                    yield from equations(inner, turns)
