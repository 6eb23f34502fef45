"""Main text by resiliparse (Bevendorff et al. 2018, ECIR)."""

import functools

from data_prep.config import ExtractConfig
from data_prep.extract.libraries import TextOf, checked, library_text


@functools.cache
def load() -> TextOf:
    """Import resiliparse and return its function for main text. Raises ImportError, and InputError like `checked`."""
    from resiliparse.extract.html2text import extract_plain_text

    def text_of(html: str, favor_precision: bool, include_tables: bool) -> str:
        text = extract_plain_text(
            html,
            preserve_formatting=True,
            main_content=True,
            alt_texts=False,
            comments=False,
            skip_elements=None if include_tables else ["table"],
        )
        return "\n".join(filter(None, (line.strip() for line in text.split("\n"))))

    return checked("resiliparse", text_of)


def main_text(html: str, config: ExtractConfig) -> str:
    return library_text("resiliparse", load(), html, config)
