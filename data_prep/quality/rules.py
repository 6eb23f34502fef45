"""Every quality rule on one page: which value drops a document, by which threshold, under which name.

A rule looks at one value of signals.py and one threshold of the config. So the rules can be applied to the stored
values of millions of texts at once, with the run's thresholds or with others (data_prep/verdict.py).
"""

from dataclasses import dataclass
from typing import Literal

from data_prep.config import DocumentsConfig


@dataclass(frozen=True, slots=True)
class Rule:
    """A document whose value lies below, or above, the threshold is dropped; one at the threshold passes."""

    stage: str
    """The step it belongs to, which is also the section of the config that holds its threshold."""
    reason: str
    """The stable name under which documents that break it are counted."""
    signal: str
    """The value it looks at, one of data_prep.quality.signals.SIGNALS."""
    drops: Literal["below", "above"]
    option: str
    """The threshold's field in that section."""
    place: int | None = None
    """Its place in the field, where that is a tuple."""

    def threshold(self, config: DocumentsConfig) -> float:
        value = getattr(getattr(config, self.stage), self.option)
        return value if self.place is None else value[self.place]


REPETITION, QUALITY, C4, FINEWEB = "gopher_repetition", "gopher_quality", "c4", "fineweb"
# fmt: off
RULES: tuple[Rule, ...] = (
    Rule(REPETITION, "gopher_duplicate_paragraphs", "duplicate_paragraphs", "above", "max_duplicate_paragraphs"),
    Rule(REPETITION, "gopher_duplicate_paragraph_characters", "duplicate_paragraph_characters", "above",
         "max_duplicate_paragraph_characters"),
    Rule(REPETITION, "gopher_duplicate_lines", "duplicate_lines", "above", "max_duplicate_lines"),
    Rule(REPETITION, "gopher_duplicate_line_characters", "duplicate_line_characters", "above",
         "max_duplicate_line_characters"),
    Rule(REPETITION, "gopher_top_2_gram", "top_2_gram", "above", "max_top_ngram_characters", 0),
    Rule(REPETITION, "gopher_top_3_gram", "top_3_gram", "above", "max_top_ngram_characters", 1),
    Rule(REPETITION, "gopher_top_4_gram", "top_4_gram", "above", "max_top_ngram_characters", 2),
    Rule(REPETITION, "gopher_duplicate_5_grams", "duplicate_5_grams", "above", "max_duplicate_ngram_characters", 0),
    Rule(REPETITION, "gopher_duplicate_6_grams", "duplicate_6_grams", "above", "max_duplicate_ngram_characters", 1),
    Rule(REPETITION, "gopher_duplicate_7_grams", "duplicate_7_grams", "above", "max_duplicate_ngram_characters", 2),
    Rule(REPETITION, "gopher_duplicate_8_grams", "duplicate_8_grams", "above", "max_duplicate_ngram_characters", 3),
    Rule(REPETITION, "gopher_duplicate_9_grams", "duplicate_9_grams", "above", "max_duplicate_ngram_characters", 4),
    Rule(REPETITION, "gopher_duplicate_10_grams", "duplicate_10_grams", "above", "max_duplicate_ngram_characters", 5),
    Rule(QUALITY, "gopher_short_document", "words", "below", "min_words"),
    Rule(QUALITY, "gopher_long_document", "words", "above", "max_words"),
    Rule(QUALITY, "gopher_below_mean_word_length", "mean_word_length", "below", "min_mean_word_length"),
    Rule(QUALITY, "gopher_above_mean_word_length", "mean_word_length", "above", "max_mean_word_length"),
    Rule(QUALITY, "gopher_too_many_hashes", "hashes_per_word", "above", "max_symbols_per_word"),
    Rule(QUALITY, "gopher_too_many_ellipses", "ellipses_per_word", "above", "max_symbols_per_word"),
    Rule(QUALITY, "gopher_too_many_bullet_lines", "bullet_lines", "above", "max_bullet_lines"),
    Rule(QUALITY, "gopher_too_many_ellipsis_lines", "ellipsis_lines", "above", "max_ellipsis_lines"),
    Rule(QUALITY, "gopher_too_few_words_with_letter", "words_with_letter", "below", "min_words_with_letter"),
    Rule(QUALITY, "gopher_too_few_stop_words", "stop_words", "below", "min_stop_words"),
    Rule(C4, "c4_lorem_ipsum", "c4_lorem_ipsum", "above", "max_lorem_ipsum"),
    Rule(C4, "c4_curly_bracket", "c4_curly_brackets", "above", "max_curly_brackets"),
    Rule(C4, "c4_too_few_sentences", "c4_sentences", "below", "min_sentences"),
    Rule(FINEWEB, "fineweb_too_few_terminal_punctuation_lines", "terminal_punctuation_lines", "below",
         "min_terminal_punctuation_lines"),
    Rule(FINEWEB, "fineweb_too_many_short_lines", "short_lines", "above", "max_short_lines"),
    Rule(FINEWEB, "fineweb_duplicate_line_characters", "fineweb_duplicate_line_characters", "above",
         "max_duplicate_line_characters"),
    Rule(FINEWEB, "fineweb_too_many_newlines", "newlines_per_word", "above", "max_newlines_per_word"),
)
# fmt: on
"""All rules, in the order in which they are applied."""


def rules_of(config: DocumentsConfig) -> tuple[Rule, ...]:
    """Those of the steps that `config` uses."""
    return tuple(rule for rule in RULES if rule.stage in config.steps)


DATATROVE_REASONS = {
    "gopher_duplicate_paragraphs": "dup_para_frac",
    "gopher_duplicate_paragraph_characters": "dup_para_char_frac",
    "gopher_duplicate_lines": "dup_line_frac",
    "gopher_duplicate_line_characters": "dup_line_char_frac",
    **{f"gopher_top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"gopher_duplicate_{n}_grams": f"duplicated_{n}_n_grams" for n in range(5, 11)},
    "gopher_short_document": "gopher_short_doc",
    "gopher_long_document": "gopher_long_doc",
    "gopher_below_mean_word_length": "gopher_below_avg_threshold",
    "gopher_above_mean_word_length": "gopher_above_avg_threshold",
    "gopher_too_many_hashes": "gopher_too_many_hashes",
    "gopher_too_many_ellipses": "gopher_too_many_ellipsis",
    "gopher_too_many_bullet_lines": "gopher_too_many_bullets",
    "gopher_too_many_ellipsis_lines": "gopher_too_many_end_ellipsis",
    "gopher_too_few_words_with_letter": "gopher_below_alpha_threshold",
    "gopher_too_few_stop_words": "gopher_enough_stop_words",
    "c4_lorem_ipsum": "lorem_ipsum",
    "c4_curly_bracket": "curly_bracket",
    "c4_too_few_sentences": "too_few_sentences",
    "fineweb_too_few_terminal_punctuation_lines": "line_punct_ratio",
    "fineweb_too_many_short_lines": "short_line_ratio",
    "fineweb_duplicate_line_characters": "char_dup_ratio",
    "fineweb_too_many_newlines": "list_ratio",
}
"""What datatrove 0.10 calls the reasons of RULES, so that funnels can be compared.

"c4_no_lines" has no name there: such a text mostly has too few sentences, else the filter after C4's calls it "empty".
"""
