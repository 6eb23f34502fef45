"""Knobs of the quality model: a linear classifier of text, trained on two sets of documents."""

from dataclasses import dataclass

from lm.errors import UsageError
from lm.fields import Config


@dataclass(frozen=True)
class ModelQualityConfig(Config):
    """Documents kept by the score of a trained classifier (DCLM, arXiv:2406.11794, section 4.4)."""

    model: str
    """Folder of the trained model; "" where the step model_quality is not used."""
    keep_share: float
    """Share of documents that are kept, those with the highest scores (above 0, at most 1)."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.keep_share <= 1:
            raise UsageError(
                f"documents.model_quality.keep_share is {self.keep_share}; give a share above 0, at most 1."
            )
