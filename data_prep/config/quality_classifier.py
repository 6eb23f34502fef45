"""Config of the quality classifier: a linear text classifier trained on two sets of documents."""

import math
from dataclasses import dataclass

from data_prep.config.filters import Filter, Rule, Signal
from lm.fields import Config, not_hashed, positive, within


@dataclass(frozen=True)
class QualityTrainingConfig(Config):
    """Settings of launch.train_quality_classifier, which trains the quality classifier."""

    good: tuple[str, ...]
    """Texts of the wanted kind: shell patterns of Parquet or JSONL files (.gz, .zst) with a column or key `text`."""
    other: tuple[str, ...]
    """Ordinary web texts, in the same formats; no file may be in both sets."""
    documents_per_set: int
    """Documents to use of each set, drawn at random if it has more."""
    held_out_share: float
    """Share of documents held out to evaluate the model (at least 0, below 1)."""
    hash_bits: int
    """The model has 2**hash_bits weights (10 to 26), shared by all words and word pairs."""
    epochs: int
    """Passes over the training documents."""
    batch_size: int
    """Documents per step."""
    learning_rate: float
    """Learning rate of Adagrad, in units of the logit."""
    seed: int
    """Seed of the sampling and of the order of training."""

    def check_values(self):
        where = "documents.quality_classifier.training"
        within(self, where, 1, math.inf, "documents_per_set", "epochs", "batch_size")
        within(self, where, 10, 26, "hash_bits")
        within(self, where, 0, math.inf, "seed")
        positive(self, where, "learning_rate")
        within(self, where, 0, 1, "held_out_share", below=True)


@dataclass(frozen=True)
class QualityClassifierConfig(Filter):
    """Keep documents by the score of a trained classifier (DCLM, arXiv:2406.11794, section 4.4)."""

    model: str
    """Folder of the trained model; "" if the step quality_classifier is not used."""
    keep_share: float
    """Share of documents to keep, those with the highest scores (above 0, at most 1)."""
    training: QualityTrainingConfig = not_hashed()  # noqa: RUF009
    """Training of the model; it affects the documents only through the model."""

    name = "quality_classifier"
    title = "Quality classifier"
    summary = (
        "A trained classifier scores each text by its likeness to texts of a wanted kind (Li et al. 2024, "
        "arXiv:2406.11794, section 4.4). The threshold is set so that the wanted share of documents passes."
    )
    signals = (
        Signal(
            "quality_score",
            "Likeness to the wanted texts",
            "0: like ordinary web text; 1: like the texts of the wanted kind.",
        ),
    )
    # The limit is the lowest score of the kept share (data_prep/select/run.py).
    rules = (Rule("low_quality_score", "quality_score", "below", "keep_share"),)

    def check_values(self):
        within(self, "documents.quality_classifier", 0, 1, "keep_share", above=True)
