"""Looking inside a forward pass: activations, attention weights and the residual stream by name.

The model calls `tap` where it has a value that somebody may want to see. In training there are no Taps: nothing is
added to the program.
"""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import jax


@dataclass(frozen=True)
class Taps:
    """Which values are wanted, and those that were found. For one forward pass, layer by layer: not through a scan."""

    patterns: tuple[str, ...]
    """Names, or patterns of them, such as "blocks.*.attention.weights"."""
    found: dict[str, jax.Array] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    """All names that came by, wanted or not."""
    place: str = ""
    """What the names begin with."""

    def at(self, place: str) -> "Taps":
        """The same, for a part of the model."""
        return replace(self, place=f"{self.place}{place}.")

    def wants(self, name: str) -> bool:
        """Whether somebody asked for it."""
        name = f"{self.place}{name}"
        self.seen.append(name)
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)

    def keep(self, name: str, value: jax.Array) -> None:
        """Has `value` found under the name."""
        self.found[f"{self.place}{name}"] = value

    def unmatched(self) -> list[str]:
        """The patterns that no name has matched."""
        return [pattern for pattern in self.patterns if not any(fnmatchcase(name, pattern) for name in self.seen)]


def tap(taps: Taps | None, name: str, value: jax.Array) -> None:
    """Keeps `value` under the name, if it is wanted."""
    if taps is not None and taps.wants(name):
        taps.keep(name, value)


def at(taps: Taps | None, place: str) -> Taps | None:
    """`taps` for a part of the model."""
    return None if taps is None else taps.at(place)
