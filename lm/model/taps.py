"""Capture activations, attention weights and the residual stream of a forward pass by name.

The model calls `tap` for each value that can be captured. Without Taps, nothing is added to the program.
"""

import re
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import jax
import jax.numpy as jnp

ANY_LAYER = "blocks.*"
"""Prefix of the names in a block whose number is not known while it is traced: in a scan, or with remat."""


@dataclass(frozen=True)
class Taps:
    """Requested and captured values of one forward pass."""

    patterns: tuple[str, ...]
    """Names or patterns, such as "blocks.*.attention.weights"."""
    found: dict[str, jax.Array] = field(default_factory=dict)
    """{name: captured array}."""
    seen: list[str] = field(default_factory=list)
    """All available names, requested or not."""
    place: str = ""
    """Prefix of the names."""
    as_scalars: bool = False
    """Keep the root mean square of each array instead of its values."""

    def at(self, place: str) -> "Taps":
        """Return taps that share their values with these, for the part of the model named `place`."""
        return replace(self, place=f"{self.place}{place}.")

    def empty(self) -> "Taps":
        """Return a copy of these Taps without values, for a function that JAX traces separately. The function must
        return the values that it captures."""
        return replace(self, found={}, seen=[])

    def wants(self, name: str) -> bool:
        """Return whether a value was requested: one of the patterns matches its name."""
        name = f"{self.place}{name}"
        self.seen.append(name)
        return any(matches(name, pattern) for pattern in self.patterns)

    def keep(self, name: str, value: jax.Array) -> None:
        """Store `value`, or its root mean square if `as_scalars`, as `place` + `name`."""
        if self.as_scalars:
            value = value.astype(jnp.float32)
            value = jnp.sqrt(jnp.mean(jnp.square(value))) if value.ndim else value
        self.found[f"{self.place}{name}"] = value

    def add_block(self, layer: int, found: dict[str, jax.Array], seen: list[str]) -> None:
        """Store the values captured in a block, and the names available there, under the number of its layer."""
        numbered = lambda name: name.replace(ANY_LAYER, f"blocks.{layer}", 1)
        self.seen.extend(map(numbered, seen))
        wanted = lambda name: any(fnmatchcase(numbered(name), pattern) for pattern in self.patterns)
        self.found.update({numbered(name): value for name, value in found.items() if wanted(name)})

    def unmatched(self) -> list[str]:
        """Return the patterns that no name has matched."""
        return [pattern for pattern in self.patterns if not any(fnmatchcase(name, pattern) for name in self.seen)]


def matches(name: str, pattern: str) -> bool:
    """Return whether the pattern matches the name. A name in "blocks.*", in a scan over layers, matches if the name of
    any layer would match."""
    if name.startswith(f"{ANY_LAYER}."):
        pattern = LAYER.sub(f"{ANY_LAYER}.", pattern)
    return fnmatchcase(name, pattern)


LAYER = re.compile(r"^blocks\.[^.]+\.")


def tap(taps: Taps | None, name: str, value: jax.Array) -> None:
    """Store `value` under the name, if requested."""
    if taps is not None and taps.wants(name):
        taps.keep(name, value)


def at(taps: Taps | None, place: str) -> Taps | None:
    """Return taps for the part of the model named `place`; None if `taps` is None."""
    return None if taps is None else taps.at(place)
