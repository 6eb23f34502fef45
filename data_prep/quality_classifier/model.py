"""Trained quality classifier: one weight per bucket of hashed words and word pairs, and the score of a text.

Words and pairs of adjacent words are hashed into buckets, as in fastText (Joulin et al. 2016, arXiv:1607.01759), by
BLAKE2, which is the same in every process and on every machine. fastText averages the vectors of a text's n-grams and
applies a linear layer. For two classes this is the mean of one number per n-gram, the logit. Weights are integers, so
their sum is the same on every machine.
"""

import functools
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.npz import load_npz
from data_prep.quality_classifier.histogram import DECIMALS
from data_prep.text.words import Memo, split_words
from lm.errors import InputError
from lm.storage import file_sha256, write_atomically, writing

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads keys evenly (Knuth, vol. 3, section 6.4)
PROBE = (
    "The U.S. didn't pay $3.50 (or 4,000 yen) -- see https://example.com/a_b?c=d#e... Ähre, naïve; 中文字, слово! THE"
)


def hash_word(word: str) -> int:
    """Return a 32-bit hash of the word, ignoring case."""
    data = word.lower().encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little")


HASHES = Memo(hash_word)


def word_hashes(words: Sequence[str]) -> np.ndarray:
    """uint32 [words]: the hash of each word, in order."""
    return np.fromiter(map(HASHES.__getitem__, words), np.uint32, len(words))


def ngram_buckets(hashes: np.ndarray, hash_bits: int) -> np.ndarray:
    """int64 [2 * words - 1]: bucket, below 2**hash_bits, of each word of a text, then of each pair of adjacent words.

    `hashes` are those of the text's words. Repeated words and pairs are repeated in the result.
    """
    keys = hashes.astype(np.uint64)
    pairs = keys[:-1] << np.uint64(32) | keys[1:]
    # The product's highest bits depend on all bits of the key.
    return (np.concatenate([keys, pairs]) * MULTIPLIER >> np.uint64(64 - hash_bits)).astype(np.int64)


def features_sha256() -> str:
    """Return a hash that changes if words are split or hashed differently, which makes earlier models unusable."""
    return hashlib.sha256(ngram_buckets(word_hashes(split_words(PROBE)), 32).astype("<i8").tobytes()).hexdigest()


WEIGHTS, DESCRIPTION = "model.npz", "model.json"
FORMAT = 1
UNIT = 2.0**-16
"""Logit of an integer weight of 1."""
MAX_BITS = 26
MAX_BYTES = (4 << MAX_BITS) + (1 << 16)
REMEDY = "Train it again: python -m launch.train_quality_classifier CONFIG.py"


@dataclass(frozen=True, eq=False)
class QualityClassifier:
    weights: np.ndarray
    """int32 [2**hash_bits]: weight of each bucket, in units of UNIT; 0 for n-grams that did not occur in training."""
    bias: int
    """Bias, in units of UNIT."""

    @property
    def hash_bits(self) -> int:
        return len(self.weights).bit_length() - 1

    def score(self, text: str) -> float:
        """Return the probability that `text` is of the set "good" and not "other", if both are equally frequent: 0 to
        1, rounded to 6 digits; 0.0 if it has no words."""
        return self.score_of_hashes(word_hashes(split_words(text)))

    def score_of_hashes(self, hashes: np.ndarray) -> float:
        """Return the score of a text from the hashes of its words."""
        if not len(hashes):
            return 0.0
        found = self.weights[ngram_buckets(hashes, self.hash_bits)]
        logit = (self.bias + int(found.sum(dtype=np.int64)) / len(found)) * UNIT
        return round(sigmoid(logit), DECIMALS)


def sigmoid(logit: float) -> float:
    """Return 1 / (1 + exp(-logit)), without overflow."""
    small = math.exp(-abs(logit))
    return (1 if logit >= 0 else small) / (1 + small)


def save_model(model: QualityClassifier, description: dict, folder: Path) -> None:
    """Write model.npz, and then model.json: `description` with the checksum of model.npz."""
    buffer = io.BytesIO()
    np.savez(buffer, weights=model.weights, bias=np.int64(model.bias))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / WEIGHTS, buffer.getvalue(), scratch=folder)
        header = {
            "format": FORMAT,
            "weights_sha256": file_sha256(folder / WEIGHTS),
            "features_sha256": features_sha256(),
        }
        text = json.dumps(header | description, indent=1, ensure_ascii=False) + "\n"
        write_atomically(folder / DESCRIPTION, text.encode(), scratch=folder)


def read_description(folder: Path) -> dict:
    """Return the contents of model.json in `folder`. Raises InputError if it is missing or damaged."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        found = (description["format"], description["weights_sha256"], description["features_sha256"])
    except OSError as error:
        raise InputError(f"There is no quality classifier in {folder}: {error}. {REMEDY}") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / DESCRIPTION} is damaged: {error!r}. {REMEDY}") from error
    if found[0] != FORMAT:
        raise InputError(f"{folder} has format {found[0]}; this version reads {FORMAT}. {REMEDY}")
    return description


def model_sha256(folder: str | Path) -> str:
    """Return the SHA-256 of the weights, which identifies the model in `folder`. Raises InputError if there is none."""
    return read_description(Path(folder).expanduser())["weights_sha256"]


@functools.cache
def load_model(folder: str | Path) -> QualityClassifier:
    """Load the model in `folder`, once per process. Raises InputError if it is missing or damaged, or was trained with
    another word splitter."""
    path = Path(folder).expanduser()
    description = read_description(path)
    if description["features_sha256"] != features_sha256():
        raise InputError(
            f"The quality classifier in {path} was trained with another word splitter, so its scores would be wrong. "
            f"{REMEDY}"
        )
    try:
        size = (path / WEIGHTS).stat().st_size
        if size > MAX_BYTES:
            raise InputError(
                f"{path / WEIGHTS} has {size:,} bytes; the largest model has {MAX_BYTES:,} (hash_bits = {MAX_BITS}). "
                f"{REMEDY}"
            )
        if file_sha256(path / WEIGHTS) != description["weights_sha256"]:
            raise InputError(f"{path / WEIGHTS} does not match its {DESCRIPTION}. {REMEDY}")
        weights, bias = load_npz(path / WEIGHTS, {"weights": ("<i4", (None,)), "bias": ("<i8", ())})
        if len(weights) not in [1 << bits for bits in range(1, MAX_BITS + 1)]:
            raise ValueError(f"weights.npy has {len(weights):,} weights, which is not a power of 2 up to 2**{MAX_BITS}")
        return QualityClassifier(weights, int(bias))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path / WEIGHTS} cannot be read: {error}. {REMEDY}") from error
