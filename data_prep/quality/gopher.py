"""Quality rules of Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1), as DataTrove, which made FineWeb, reads
them: counts and mean lengths leave punctuation out, shares are of all tokens, stop words are looked up as written.
"""

from data_prep.config import GopherQualityConfig
from data_prep.documents import Document
from data_prep.words import is_symbol, split_words

BULLETS = ("•", "-")
ELLIPSES = ("...", "…")


def reject_reason(document: Document, config: GopherQualityConfig) -> str | None:
    """The first rule that `document` breaks, in the order below; a value at its threshold passes.

    Of words: gopher_short_document, gopher_long_document, gopher_below_mean_word_length, gopher_above_mean_word_length.
    Of symbols: gopher_too_many_hashes, gopher_too_many_ellipses.
    Of lines: gopher_too_many_bullet_lines, gopher_too_many_ellipsis_lines.
    Of meaning: gopher_too_few_words_with_letter, gopher_too_few_stop_words.
    """
    words = split_words(document.text)
    return (
        length_reason(words, config)
        or symbol_reason(document.text, words, config)
        or line_reason(document.text, config)
        or meaning_reason(words, config)
    )


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def length_reason(words: tuple[str, ...], config: GopherQualityConfig) -> str | None:
    lengths = [len(word) for word in words if not is_symbol(word)]
    if len(lengths) < config.min_words:
        return "gopher_short_document"
    if len(lengths) > config.max_words:
        return "gopher_long_document"
    mean = share(sum(lengths), len(lengths))
    if mean < config.min_mean_word_length:
        return "gopher_below_mean_word_length"
    if mean > config.max_mean_word_length:
        return "gopher_above_mean_word_length"
    return None


def symbol_reason(text: str, words: tuple[str, ...], config: GopherQualityConfig) -> str | None:
    if share(text.count("#"), len(words)) > config.max_symbols_per_word:
        return "gopher_too_many_hashes"
    if share(sum(text.count(ellipsis) for ellipsis in ELLIPSES), len(words)) > config.max_symbols_per_word:
        return "gopher_too_many_ellipses"
    return None


def line_reason(text: str, config: GopherQualityConfig) -> str | None:
    lines = text.splitlines()
    if share(sum(line.lstrip().startswith(BULLETS) for line in lines), len(lines)) > config.max_bullet_lines:
        return "gopher_too_many_bullet_lines"
    if share(sum(line.rstrip().endswith(ELLIPSES) for line in lines), len(lines)) > config.max_ellipsis_lines:
        return "gopher_too_many_ellipsis_lines"
    return None


def meaning_reason(words: tuple[str, ...], config: GopherQualityConfig) -> str | None:
    with_letter = sum(word.isalpha() or any(character.isalpha() for character in word) for word in words)
    if share(with_letter, len(words)) < config.min_words_with_letter:
        return "gopher_too_few_words_with_letter"
    present = set(words)
    if sum(stop_word in present for stop_word in config.stop_words) < config.min_stop_words:
        return "gopher_too_few_stop_words"
    return None
