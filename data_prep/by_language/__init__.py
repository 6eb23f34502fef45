"""Language-specific parts of the pipeline: names and scripts, thresholds, word splitters.

May import: data_prep.config, data_prep.text, data_prep.sources.
"""

from data_prep.by_language.thresholds import refuse_other_stop_words, thresholds_identity, with_thresholds
