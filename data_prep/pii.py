"""Personal data: e-mail addresses are replaced by a placeholder, as in FineWeb (arXiv:2406.17557, appendix)."""

import dataclasses
import re

from data_prep.config import PersonalDataConfig
from data_prep.documents import Document

# Every repetition is bounded (64 and 63 by RFC 5321 and RFC 1035), and a match begins only where a run of letters and
# digits does, so that the time grows with the text's length and no faster, whatever the text.
EMAIL = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,16}[A-Za-z]{2,63}"
)


def replace_emails(text: str, placeholder: str) -> tuple[str, int]:
    """`text` with every e-mail address replaced by `placeholder`, and how many there were."""
    return EMAIL.subn(lambda _: placeholder, text)


def remove_personal_data(document: Document, config: PersonalDataConfig) -> tuple[Document, int]:
    """`document` with its personal data replaced, and the number of replacements."""
    if not config.replace_emails:
        return document, 0
    text, count = replace_emails(document.text, config.email_placeholder)
    return dataclasses.replace(document, text=text), count
