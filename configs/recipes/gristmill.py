"""Our recipe, based on FineWeb (Penedo et al. 2024, arXiv:2406.17557), with all thresholds in one file.

The numbers are those of the paper and of datatrove's examples/fineweb.py; if the two differ, datatrove's. The quality
rules are those of datatrove 0.10. The extraction engine, the parsing of URLs, `letters_only`, four of the six kinds of
personal data and exact deduplication are ours. datatrove_0_10.py has datatrove's own choices, fineweb_2024.py the rules
of the published corpus; docs/recipes.md compares the three.
"""

from typing import Any

from data_prep.config import (
    DocumentsConfig,
    ExtractConfig,
    Filter,
    LanguageConfig,
    MinHashConfig,
    PackageLists,
    PersonalDataConfig,
    UrlFilterConfig,
    documents_config,
)
from data_prep.package_index import PackageFile
from data_prep.quality.c4 import C4Filter
from data_prep.quality.fineweb import FineWebFilter
from data_prep.quality.gopher import GopherQualityFilter
from data_prep.quality.repetition import GopherRepetitionFilter

URL_FILTER = UrlFilterConfig(
    banned_domains=(),
    banned_words=(),
    soft_word_threshold=2,
    packages=(
        PackageLists(
            file=PackageFile(
                project="datatrove",
                version="0.10.1",
                name="datatrove-0.10.1-py3-none-any.whl",
                sha256="b0846fc28482b25c9dbeaa09445066ff68266b58d762e9344c64fe5f6d92d14c",
            ),
            folder="datatrove/assets",
            licence="CC BY-SA (domains and pages), Apache-2.0 (words)",
            credit="FineWeb's lists: the adult sites of Université Toulouse Capitole, and the words of datatrove",
        ),
    ),
)

URL_FILTER_WITHOUT_LISTS = UrlFilterConfig(banned_domains=(), banned_words=("porn", "xxx", "casino"))

EXTRACT = ExtractConfig(
    engine="gristmill",
    min_probability=0.7,
    favor_precision=True,
    include_tables=True,
    max_bytes=5_000_000,
    max_depth=1_000,
    max_elements=200_000,
    max_attributes=1_000,
)

LANGUAGE = LanguageConfig(languages=("en",), min_score=0.65, letters_only=True)

GOPHER_REPETITION = GopherRepetitionFilter(
    max_duplicate_lines=0.3,
    max_duplicate_paragraphs=0.3,
    max_duplicate_line_characters=0.2,
    max_duplicate_paragraph_characters=0.2,
    max_top_ngram_characters=(0.20, 0.18, 0.16),
    max_duplicate_ngram_characters=(0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
)

GOPHER_QUALITY = GopherQualityFilter(
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

C4 = C4Filter(
    min_sentences=5,
    max_lorem_ipsum=0,
    max_curly_brackets=0,
    remove_citations=True,
    min_words_per_line=3,
    max_word_length=1000,
    script_phrases=("javascript",),
    policy_phrases=(
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    ),
)

FINEWEB = FineWebFilter(
    min_terminal_punctuation_lines=0.12,
    max_short_lines=0.67,
    max_duplicate_line_characters=0.01,
    max_newlines_per_word=0.3,
    short_line_length=30,
)

FILTERS = (GOPHER_REPETITION, GOPHER_QUALITY, C4, FINEWEB)
"""Filters in the order of application; the first filter that rejects a text drops it."""

MINHASH = MinHashConfig(shingle_words=5, bands=14, rows=8, seed=1)

# FineWeb replaces the first two; the placeholders are reserved addresses and numbers, which are unassigned.
PERSONAL_DATA = PersonalDataConfig(
    kinds=("email", "ip", "iban", "payment_card", "address", "phone"),
    email_placeholder="email@example.com",
    ip_placeholder="192.0.2.1",
    iban_placeholder="GB82 WEST 1234 5698 7654 32",
    payment_card_placeholder="4111 1111 1111 1111",
    address_placeholder="1 Example Street, Anytown",
    phone_placeholder="+1 202-555-0100",
    phone_regions=("US", "GB", "AU", "NZ", "IE", "IN", "ZA"),
    phone_words=(
        "phone",
        "phones",
        "telephone",
        "tel",
        "tel.",
        "mobile",
        "mob",
        "cell",
        "cellphone",
        "landline",
        "fax",
        "telefax",
        "call",
        "dial",
        "ring",
        "reach",
        "reached",
        "answering",
        "voicemail",
        "switchboard",
        "desk",
        "office",
        "reception",
        "enquiries",
        "inquiries",
        "bookings",
        "reservations",
        "emergency",
        "hotline",
        "helpline",
        "toll free",
        "toll-free",
        "contact",
        "whatsapp",
        "sms",
        "text",
        "message",
        "messages",
        "my number",
        "our number",
        "her number",
        "his number",
        "their number",
        "telefon",
        "téléphone",
        "tél",
        "teléfono",
        "telefono",
        "telefone",
        "mobil",
        "móvil",
        "handy",
    ),
)


def documents(
    dump: str,
    url_filter: UrlFilterConfig,
    *more: Filter,
    filters: tuple[Filter, ...] = FILTERS,
    dedup: tuple[str, ...] = ("exact_dedup", "minhash_dedup"),
    **fields: Any,
) -> DocumentsConfig:
    """Return this recipe's DocumentsConfig for one crawl, `dump`, with its filters and the deduplication steps `dedup`.
    `more` are your filters, run after `filters`, the recipe's. Other `fields` of DocumentsConfig replace the
    recipe's."""
    filters = (*filters, *more)
    recipe = {
        "extract": EXTRACT, "language": LANGUAGE, "minhash": MINHASH, "personal_data": PERSONAL_DATA,
        "measure_other_languages": False,
    }  # fmt: skip
    steps = (*(one.name for one in filters), *dedup)
    return documents_config(filters, dump=dump, steps=steps, url_filter=url_filter, **(recipe | fields))
