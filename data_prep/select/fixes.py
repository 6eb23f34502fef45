"""FineWeb-2's fixes of kept texts: repair encodings, and remove lines of symbols, such as table rules.

Encodings are repaired before personal data is replaced, lines are removed afterwards.
"""

import functools
from typing import TYPE_CHECKING

from data_prep.config import ByLanguageConfig
from lm.errors import InputError

if TYPE_CHECKING:
    from ftfy import TextFixerConfig  # ty: ignore[import-not-found]


@functools.cache
def encoding_fixes() -> "TextFixerConfig":
    """Return ftfy's options as in datatrove's FTFYFormatter: repair wrongly decoded text, but keep ligatures, character
    widths, quotes and line breaks. Raises InputError if ftfy is not installed."""
    try:
        from ftfy import TextFixerConfig  # ty: ignore[import-not-found]
    except ImportError as error:
        raise InputError(
            f"documents.by_language.fix_encoding needs ftfy: {error}. Install it (make languages), or turn it off: "
            "--documents.by-language.fix-encoding False"
        ) from error
    return TextFixerConfig(
        fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False, fix_line_breaks=False,
        normalization=None,
    )  # fmt: skip


def check_fixes(config: ByLanguageConfig | None) -> None:
    """Raise InputError if the config needs ftfy and it is not installed."""
    if config is not None and config.fix_encoding:
        encoding_fixes()


def fix_encoding(text: str, config: ByLanguageConfig | None) -> str:
    """Return `text` with wrong decoding repaired ("schÃ¶n" becomes "schön") if config.fix_encoding is set."""
    if config is None or not config.fix_encoding:
        return text
    from ftfy import fix_text  # ty: ignore[import-not-found]

    return fix_text(text, config=encoding_fixes())


def without_symbol_lines(text: str, config: ByLanguageConfig | None) -> str:
    """Replace each run of lines of only blanks and config.symbol_lines, such as table rules, by two empty lines."""
    symbols = frozenset(config.symbol_lines) if config is not None else frozenset()
    if not any(symbol in text for symbol in symbols):
        return text
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        of_symbols = not line.isspace() and line != "" and symbols.issuperset(line.replace(" ", ""))
        if not of_symbols:
            lines.append(line)
        elif not inside:
            lines.append("\n")
        inside = of_symbols
    return "\n".join(lines)
