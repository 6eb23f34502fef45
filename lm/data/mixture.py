"""Mixtures of shards: which folders with which weights, and whose turn it is, as a pure function of the sequence's
number.

Grain's own MapDataset.mix rounds the weights to hundredths of the smallest: of weights 3 and 7 it makes 100 and 233, so
that the shares drift away without bound. Here they are exact.
"""

import hashlib
import math
from collections.abc import Iterable
from fractions import Fraction

from lm.config import TrainConfig
from lm.data.records import MANIFEST
from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from lm.storage import Place, place_of


def mixture_of(config: TrainConfig, own: Place) -> dict[Place, float]:
    """{folder of shards: its weight} of a run whose own shards are in `own`; 0 for a folder that only later stages of
    train.mixture_schedule read.

    Raises UsageError when a folder is named twice, InputError when one of the others has no manifest.
    """
    weights: dict[Place, float] = {own: float(config.own_weight)} if config.reads_own_shards else {}
    # Also where the own shards take no part: to name them in the mixture is a second way to say own_weight.
    names: dict[Place, str] = {own.resolve(): f"{own} (this run's own, with train.own_weight = {config.own_weight:g})"}
    for source in config.mixture:
        folder = place_of(source.tokens)
        named = f"{source.tokens} (with weight {source.weight:g})"
        if folder.resolve() in names:
            raise UsageError(
                f"train.mixture has the same folder twice: {names[folder.resolve()]} and {named}. "
                "Name each once, with the sum of the weights; the run's own by train.own_weight alone."
            )
        manifest_of(folder)
        names[folder.resolve()] = named
        weights[folder] = float(source.weight)  # an int is a fine weight
    return weights


def manifest_of(folder: Place) -> Place:
    """The manifest of a folder that train.mixture names. Raises InputError when there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        inside = folder / RunPaths.tokens
        remedy = f"Name {inside}, which has one" if (inside / MANIFEST).is_file() else "Name the tokens/ of another run"
        raise InputError(f"train.mixture names {folder}, but {path} is missing. {remedy}.")
    return path


def manifest_sha256(folder: Place) -> str:
    """What tells one content of a folder of shards from another: its manifest has the SHA-256 of every shard.

    Raises InputError when there is none.
    """
    return hashlib.sha256(manifest_of(folder).read_bytes()).hexdigest()


def mixture_manifests(config: TrainConfig) -> dict[str, object]:
    """What stands in the folders of a mixture, for the marker of a stage. Raises InputError as `manifest_sha256`."""
    names = [source.tokens for source in config.mixture]
    return {f"SHA-256 of {one}/{MANIFEST}": manifest_sha256(place_of(one)) for one in names}


class Turns:
    """Whose turn each sequence is: turns[number] is (source, how many sequences of that source came before).

    After any number of sequences each of n sources has given its weight's share of them, but for less than n - 1.
    """

    def __init__(self, weights: Iterable[float]):
        exact = [Fraction(str(weight)) for weight in weights]  # 0.1 is a tenth here, not the float nearest to it
        scale = math.lcm(*(weight.denominator for weight in exact))
        self._parts = [int(weight * scale) for weight in exact]

    def __getitem__(self, number: int) -> tuple[int, int]:
        # before, after: sequences of this source and the later ones among the first `number`, and number + 1. A source
        # takes its share of them, rounded up; the rest is for the later ones. All in whole numbers of any size.
        rest, before, after = sum(self._parts), number, number + 1
        for source, part in enumerate(self._parts):
            left_before, left_after = before * (rest - part) // rest, after * (rest - part) // rest
            if before - left_before < after - left_after:
                return source, before - left_before
            rest, before, after = rest - part, left_before, left_after
        raise AssertionError("the last source takes all that is left")

    def counts(self, number: int) -> list[int]:
        """How many of the first `number` sequences are of each source."""
        found, rest = [], sum(self._parts)
        for part in self._parts:
            left = number * (rest - part) // rest if rest else 0
            found.append(number - left)
            rest, number = rest - part, left
        return found
