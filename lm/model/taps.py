"""Capture activations, attention weights and the residual stream of a forward pass by name.

The model calls `tap` for each value that can be captured. In training there are no Taps, and nothing is added to the
program.
"""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import jax


@dataclass(frozen=True)
class Taps:
    """Requested and captured values of one forward pass. Needs unrolled layers, not a scan."""

    patterns: tuple[str, ...]
    """Names or patterns, such as "blocks.*.attention.weights"."""
    found: dict[str, jax.Array] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    """All available names, requested or not."""
    place: str = ""
    """Prefix of the names."""

    def at(self, place: str) -> "Taps":
        """Return the same taps for a part of the model."""
        return replace(self, place=f"{self.place}{place}.")

    def wants(self, name: str) -> bool:
        """Whether a pattern matches the name."""
        name = f"{self.place}{name}"
        self.seen.append(name)
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)

    def keep(self, name: str, value: jax.Array) -> None:
        """Store `value` under the name."""
        self.found[f"{self.place}{name}"] = value

    def unmatched(self) -> list[str]:
        """Patterns that no name has matched."""
        return [pattern for pattern in self.patterns if not any(fnmatchcase(name, pattern) for name in self.seen)]


def tap(taps: Taps | None, name: str, value: jax.Array) -> None:
    """Store `value` under the name, if requested."""
    if taps is not None and taps.wants(name):
        taps.keep(name, value)


def at(taps: Taps | None, place: str) -> Taps | None:
    """`taps` for a part of the model."""
    return None if taps is None else taps.at(place)
