"""Threshold files in the format of FineWeb-2 with our own values, and a small model in the format of GlotLID."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from data_prep.config import LanguageThresholds

GERMAN = ("der", "und", "die", "im")
SPANISH = ("de", "la", "en", "que")
MAGIC, VERSION = 793_712_314, 12
SOFTMAX, SUPERVISED = 3, 3


def values(**changes: object) -> dict[str, object]:
    """Thresholds that ordinary prose passes."""
    return {
        "dup_line_frac": 0.3,
        "top_n_grams": [[2, 0.2], [3, 0.18], [4, 0.16]],
        "dup_n_grams": [[size, 0.15] for size in range(5, 11)],
        "language_score": 0.5,
        "line_punct_thr": 0.1,
        "new_line_ratio": 0.3,
        "min_avg_word_length": 2,
        "max_avg_word_length": 12,
        "max_non_alpha_words_ratio": 0.7,
        "stopwords": list(GERMAN),
        **changes,
    }


def thresholds(language: str, **changes: object) -> LanguageThresholds:
    told = values(**changes)
    for name in ("top_n_grams", "dup_n_grams"):
        told[name] = tuple(value for _, value in told[name])  # ty: ignore[not-iterable]
    return LanguageThresholds(language=language, **told | {"stopwords": tuple(told["stopwords"])})  # ty: ignore


def write_thresholds(folder: Path, language: str, **changes: object) -> Path:
    """Write NAME.yml and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{language}.yml"
    path.write_text(yaml.safe_dump(values(**changes), allow_unicode=True))
    return path


def write_fasttext(path: Path, words: Mapping[str, Sequence[str]]) -> Path:
    """Write a fastText classifier (.bin, version 12) that detects each label by its `words`: the input vector of a word
    points only to its label, and the softmax of the mean of a line's words is the result."""
    labels = list(words)
    rows = ["</s>", *(word for label in labels for word in words[label])]
    owner = {word: place for place, label in enumerate(labels) for word in words[label]}
    dimensions = len(labels)
    with path.open("wb") as file:
        file.write(struct.pack("<ii", MAGIC, VERSION))
        file.write(struct.pack("<12i", dimensions, 5, 1, 1, 5, 1, SOFTMAX, SUPERVISED, 0, 0, 0, 100))
        file.write(struct.pack("<d", 1e-4))
        file.write(struct.pack("<iiiqq", len(rows) + len(labels), len(rows), len(labels), len(rows), -1))
        for kind, names in enumerate((rows, labels)):
            for name in names:
                file.write(name.encode() + b"\0" + struct.pack("<qb", 1, kind))
        for matrix in (
            [[8.0 * (owner.get(word) == place) for place in range(dimensions)] for word in rows],
            [[float(row == place) for place in range(dimensions)] for row in range(dimensions)],
        ):
            file.write(struct.pack("<?qq", False, len(matrix), dimensions))
            for row in matrix:
                file.write(struct.pack(f"<{dimensions}f", *row))
    return path
