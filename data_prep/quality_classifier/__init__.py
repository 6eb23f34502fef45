"""The quality classifier: how much a text resembles one set of documents rather than another, as a score from 0 to 1.

DCLM's filter (Li et al. 2024, arXiv:2406.11794, section 4.4): a fastText-style linear classifier is trained to tell
texts of a wanted kind from ordinary web text, and the documents with the highest scores are kept.
"""

from data_prep.quality_classifier.histogram import histogram, merge, threshold
from data_prep.quality_classifier.model import QualityClassifier, load_model

__all__ = ["QualityClassifier", "histogram", "load_model", "merge", "threshold"]
