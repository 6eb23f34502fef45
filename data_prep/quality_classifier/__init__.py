"""Quality classifier after DCLM (Li et al. 2024, arXiv:2406.11794, section 4.4): a fastText-style linear classifier,
trained to distinguish wanted texts from ordinary web text. Documents with the highest scores (0 to 1) are kept."""

from data_prep.quality_classifier.histogram import histogram, merge, threshold
from data_prep.quality_classifier.model import QualityClassifier, load_model

__all__ = ["QualityClassifier", "histogram", "load_model", "merge", "threshold"]
