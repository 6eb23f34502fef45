"""Group consecutive items by their sizes."""

import math
from collections.abc import Callable, Iterable, Iterator


def grouped[Item](
    items: Iterable[Item], size_of: Callable[[Item], int], most: int, number: float = math.inf
) -> Iterator[list[Item]]:
    """Yield consecutive items in lists of at most `number` whose sizes add up to at most `most`; a larger item is in a
    list of its own."""
    group: list[Item] = []
    total = 0
    for item in items:
        size = size_of(item)
        if group and (total + size > most or len(group) == number):
            yield group
            group, total = [], 0
        group.append(item)
        total += size
    if group:
        yield group
