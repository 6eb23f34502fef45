"""FineWeb's recipe (Penedo et al. 2024, arXiv:2406.17557), every threshold on one page.

The values are those of the paper and of the pipeline that made the corpus (huggingface/datatrove, examples/fineweb.py).
Config files take from here what they use.
"""

from data_prep.config import (
    C4Config,
    ExtractConfig,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
    LanguageConfig,
    MinHashConfig,
    ModelQualityConfig,
    PersonalDataConfig,
    UrlFilterConfig,
)

URL_FILTER = UrlFilterConfig(banned_domains=(), banned_words=("porn", "xxx", "casino"))

EXTRACT = ExtractConfig(
    engine="trafilatura", favor_precision=True, include_tables=True, max_bytes=5_000_000, max_depth=255
)

LANGUAGE = LanguageConfig(languages=("en",), min_score=0.65)

GOPHER_REPETITION = GopherRepetitionConfig(
    max_duplicate_lines=0.3,
    max_duplicate_paragraphs=0.3,
    max_duplicate_line_characters=0.2,
    max_duplicate_paragraph_characters=0.2,
    max_top_ngram_characters=(0.20, 0.18, 0.16),
    max_duplicate_ngram_characters=(0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
)

GOPHER_QUALITY = GopherQualityConfig(
    min_words=50,
    max_words=100_000,
    min_mean_word_length=3,
    max_mean_word_length=10,
    max_symbols_per_word=0.1,
    max_bullet_lines=0.9,
    max_ellipsis_lines=0.3,
    min_words_with_letter=0.8,
    stop_words=("the", "be", "to", "of", "and", "that", "have", "with"),
    min_stop_words=2,
)

C4 = C4Config(
    min_sentences=5,
    max_lorem_ipsum=0,
    max_curly_brackets=0,
    remove_citations=True,
    min_words_per_line=3,
    max_word_length=1000,
    dropped_phrases=(
        "javascript",
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    ),
)

FINEWEB = FineWebConfig(
    min_terminal_punctuation_lines=0.12,
    max_short_lines=0.67,
    max_duplicate_line_characters=0.01,
    max_newlines_per_word=0.3,
    short_line_length=30,
)

MODEL_QUALITY = ModelQualityConfig(model="", keep_share=1.0)

MINHASH = MinHashConfig(shingle_words=5, bands=14, rows=8, seed=1)

PERSONAL_DATA = PersonalDataConfig(replace_emails=True, email_placeholder="email@example.com")
