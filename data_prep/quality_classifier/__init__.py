"""The quality classifier, after DCLM (Li et al. 2024, arXiv:2406.11794, section 4.4): a fastText-style linear
classifier is trained to tell wanted texts from ordinary web text; those with the highest scores (0 to 1) are kept.
"""

from data_prep.quality_classifier.histogram import histogram, merge, threshold
from data_prep.quality_classifier.model import QualityClassifier, load_model

__all__ = ["QualityClassifier", "histogram", "load_model", "merge", "threshold"]
