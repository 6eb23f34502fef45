"""Mixtures of shards: folders with weights, and the source of each sequence as a pure function of its number.

Grain's MapDataset.mix rounds weights to hundredths of the smallest: 3 and 7 become 100 and 233, so the shares drift
without bound. Here they are exact.
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
    """Return {folder of shards: weight} of a run whose own shards are in `own`. The weight is 0 for a folder that is
    read only at later steps. Raises UsageError if a folder is listed twice, InputError if a folder of train.mixture has
    no manifest."""
    weights: dict[Place, float] = {own: float(config.own_weight)} if config.reads_own_shards else {}
    # Listed even if own_weight is 0: the run's own shards may not be in the mixture too.
    names: dict[Place, str] = {own.resolve(): f"{own} (this run's own, with train.own_weight = {config.own_weight:g})"}
    for source in config.mixture:
        folder = place_of(source.tokens)
        named = f"{source.tokens} (with weight {source.weight:g})"
        if folder.resolve() in names:
            raise UsageError(
                f"train.mixture has the same folder twice: {names[folder.resolve()]} and {named}. List each once, "
                "with the sum of the weights; weight the run's own shards with train.own_weight."
            )
        manifest_of(folder)
        names[folder.resolve()] = named
        weights[folder] = float(source.weight)  # ints are accepted
    return weights


def manifest_of(folder: Place) -> Place:
    """Return the path of the manifest.json in a folder of train.mixture. Raises InputError if it does not exist."""
    path = folder / MANIFEST
    if not path.is_file():
        inside = folder / RunPaths.tokens
        remedy = f"Name {inside}, which has one" if (inside / MANIFEST).is_file() else "Name the tokens/ of another run"
        raise InputError(f"train.mixture names {folder}, but {path} is missing. {remedy}.")
    return path


def manifest_sha256(folder: Place) -> str:
    """Return the SHA-256 of a folder's manifest.json. It identifies the content of all shards, because the manifest
    lists their hashes. Raises InputError if there is no manifest."""
    return hashlib.sha256(manifest_of(folder).read_bytes()).hexdigest()


def mixture_manifests(config: TrainConfig) -> dict[str, object]:
    """Return {"SHA-256 of FOLDER/manifest.json": hash} for the folders of train.mixture, as inputs that the training
    stage records. Raises InputError if a manifest is missing."""
    names = [source.tokens for source in config.mixture]
    return {f"SHA-256 of {one}/{MANIFEST}": manifest_sha256(place_of(one)) for one in names}


class Turns:
    """Interleaving of sources by weight: `turns[i]` is (source of sequence i, number of its earlier sequences).

    After any number of sequences, the count of each of n sources differs from its exact share by less than n - 1.
    """

    def __init__(self, weights: Iterable[float]):
        exact = [Fraction(str(weight)) for weight in weights]  # 0.1 becomes exactly 1/10
        scale = math.lcm(*(weight.denominator for weight in exact))
        self._parts = [int(weight * scale) for weight in exact]

    def __getitem__(self, number: int) -> tuple[int, int]:
        before, after = self.counts(number), self.counts(number + 1)
        source = next(source for source, count in enumerate(after) if count > before[source])
        return source, before[source]

    def counts(self, number: int) -> list[int]:
        """Return how many of the first `number` sequences come from each source."""
        # Each source takes its share, rounded up, and leaves the rest to later sources. Exact integer arithmetic.
        found, rest = [], sum(self._parts)
        for part in self._parts:
            left = number * (rest - part) // rest if rest else 0
            found.append(number - left)
            rest, number = rest - part, left
        return found
