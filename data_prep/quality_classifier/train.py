"""Train the quality classifier: logistic regression by Adagrad on the share of each bucket in a text's n-grams.

This is fastText's classifier (arXiv:1607.01759) with one-dimensional vectors, which is equivalent for two classes, and
Adagrad (Duchi et al. 2011), because rare and frequent n-grams need different step sizes. It uses shares, not counts, so
longer texts do not get higher scores. The same files and config give the same model: all sums have a fixed order.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.config import QualityTrainingConfig
from data_prep.quality_classifier.examples import LABELS, Examples, document_sets, read_examples
from data_prep.quality_classifier.model import UNIT, QualityClassifier, ngram_buckets, save_model, sigmoid
from lm.errors import InputError, UsageError
from lm.storage import writing

SMALLEST_SQUARE = 1e-20  # avoids division by zero in Adagrad's first step


def train_quality_classifier(
    config: QualityTrainingConfig, folder: Path, progress: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train on the two sets and write the model to `folder`; return the description of the training in model.json.
    During training, a file there takes 4 bytes per word. Raises UsageError like `document_sets`, InputError like
    `read_table`, and InputError if a set has no training documents or the disk cannot be written."""
    sets = document_sets(config.good, config.other)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as scratch:  # unnamed, so nothing remains if the process is killed
        examples = read_examples(sets, config, scratch, progress)
        counts = {
            name: {"trained": len(examples.documents(name, False)), "held_out": len(examples.documents(name, True))}
            for name in LABELS
        }
        for name, count in counts.items():
            if not count["trained"]:
                raise InputError(
                    f"The set {name} leaves no document to train on: {count['held_out']} with words were found in "
                    f"{', '.join(str(file.path) for file in sets[name])}, and all are held out (held_out_share = "
                    f"{config.held_out_share}). Give more documents, or hold out fewer."
                )
        model = train(examples, config, progress)
        held_out = measure(model, examples) if all(count["held_out"] for count in counts.values()) else None
    files = {name: [{"name": file.name, "sha256": file.sha256} for file in of_set] for name, of_set in sets.items()}
    training = {"config": asdict(config), "files": files, "documents": counts, "held_out": held_out}
    save_model(model, training, folder)
    return training


def train(examples: Examples, config: QualityTrainingConfig, progress: Callable[[str], None]) -> QualityClassifier:
    """Return the model after config.epochs. Good and other documents have the same total weight."""
    weights, squares = np.zeros(2**config.hash_bits), np.full(2**config.hash_bits, SMALLEST_SQUARE)
    bias, bias_squares = 0.0, SMALLEST_SQUARE
    good = float(np.mean(examples.labels[~examples.held_out]))
    for epoch in range(config.epochs):
        loss = 0.0  # nats, with the weights of the documents
        for documents in batches(examples, config, epoch):
            buckets = [ngram_buckets(examples.hashes_of(document), config.hash_bits) for document in documents]
            sizes = np.array([len(one) for one in buckets])
            owner = np.repeat(np.arange(len(documents)), sizes)
            found, inverse = np.unique(np.concatenate(buckets), return_inverse=True)
            places = found.astype(np.intp)

            # bincount adds sequentially, in the same order on every machine
            logits = np.bincount(owner, weights[places][inverse]) / sizes + bias
            scores = np.array([sigmoid(logit) for logit in logits])
            labels = examples.labels[documents]
            importance = np.where(labels, 0.5 / good, 0.5 / (1 - good))
            loss -= float(importance @ np.log(np.where(labels, scores, 1 - scores) + 1e-12))

            errors = (scores - labels) * importance / len(documents)
            slopes = np.bincount(inverse, (errors / sizes)[owner])
            squares[places] += slopes**2
            weights[places] -= config.learning_rate * slopes / np.sqrt(squares[places])
            bias_squares += float(errors.sum()) ** 2
            bias -= config.learning_rate * float(errors.sum()) / math.sqrt(bias_squares)
        mean_loss = loss / np.sum(~examples.held_out)
        progress(f"quality classifier: epoch {epoch + 1} of {config.epochs}, loss {mean_loss:.4f} nats a document")
    return in_units(weights, bias, config)


def batches(examples: Examples, config: QualityTrainingConfig, epoch: int) -> Iterator[np.ndarray]:
    """Yield arrays of config.batch_size indices of training documents, in an order that is random for each epoch."""
    order = np.random.default_rng((config.seed, epoch)).permutation(np.flatnonzero(~examples.held_out))
    for start in range(0, len(order), config.batch_size):
        yield order[start : start + config.batch_size]


def in_units(weights: np.ndarray, bias: float, config: QualityTrainingConfig) -> QualityClassifier:
    """Return the model with weights as integers in units of UNIT. Raises UsageError if a weight is too large."""
    largest = max(float(np.abs(weights).max()), abs(bias))
    if not largest < 2**31 * UNIT:
        raise UsageError(
            f"documents.quality_classifier.training.learning_rate = {config.learning_rate} drove a weight to "
            f"{largest:g}; the limit of a model is {2**31 * UNIT:g}. Lower learning_rate."
        )
    return QualityClassifier(np.rint(weights / UNIT).astype(np.int32), round(bias / UNIT))


def measure(model: QualityClassifier, examples: Examples) -> dict[str, float]:
    """Evaluate the model on the held-out documents; each set must have some. Returns "balanced_accuracy", the mean
    accuracy of both sets with the threshold 0.5, and "area_under_curve", the area under the ROC curve."""
    good, other = (
        np.array([model.score_of_hashes(examples.hashes_of(document)) for document in examples.documents(name, True)])
        for name in LABELS
    )
    return {
        "balanced_accuracy": round(float(np.mean(good >= 0.5) + np.mean(other < 0.5)) / 2, 6),
        "area_under_curve": round(area_under_curve(good, other), 6),
    }


def area_under_curve(good: np.ndarray, other: np.ndarray) -> float:
    """Return how often a random score of `good` is above a random one of `other`; ties count half."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(good, other, method="asymptotic").statistic) / (len(good) * len(other))
