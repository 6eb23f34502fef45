"""The value behind every quality rule, measured once for each text, so that thresholds can be moved afterwards.

Gopher's values are of the text as it was extracted. FineWeb's are of the lines that C4's rules leave, where the step
"c4" is used, else of the whole text.
"""

from data_prep.config import DocumentsConfig
from data_prep.quality import c4, fineweb, gopher, repetition
from data_prep.text.words import count_words, line_kinds, split

SIGNALS: tuple[str, ...] = (*repetition.SIGNALS, *gopher.SIGNALS, *c4.SIGNALS, *fineweb.SIGNALS)
"""The names of the values, in order: columns of float64, explained beside their thresholds in config/quality.py."""


def measure(text: str, config: DocumentsConfig) -> dict[str, float]:
    """The values of SIGNALS, in their order, of a text that is not empty.

    Of the config count only the fields that are marked `measured` and whether "c4" is among the steps.
    """
    words, kinds = split(text)
    cleaned = c4.clean(text, config.c4)
    cleaned_kinds = line_kinds(cleaned.lines)
    judged, judged_words = (cleaned.text, count_words(cleaned_kinds)) if "c4" in config.steps else (text, len(words))
    values = [
        *repetition.measure(text, words),
        *gopher.measure(text, words, kinds, config.gopher_quality),
        *c4.measure(cleaned, cleaned_kinds),
        *fineweb.measure(judged, judged_words, config.fineweb),
    ]
    return {signal: float(value) for signal, value in zip(SIGNALS, values, strict=True)}
