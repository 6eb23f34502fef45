"""Functions and patterns of data_prep with untrusted input: pages, addresses, headers, tables, and texts made of them.

tests/test_linear_time.py walks these lists and those of tests/untrusted.py, and fails for regular expressions that
are missing from them.
"""

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from configs.recipes import datatrove_0_10
from configs.recipes import gristmill as recipe
from data_prep.by_language.splitters import indic_words
from data_prep.dedup.minhash import HASHES_0_10, HASHES_2024, WORD_HASHES, band_keys
from data_prep.dedup.substrings import word_places
from data_prep.documents import Document
from data_prep.extract import normalise
from data_prep.extract.blocks import PageLimitError, read_blocks
from data_prep.extract.charset import decode, header_codec
from data_prep.extract.hints import NAME_BITS, WORD_BITS, hints_of_name
from data_prep.language import detect_language
from data_prep.measure.row import measure
from data_prep.pii import replace_personal_data
from data_prep.quality.bad_words import WordList
from data_prep.quality.c4 import clean
from data_prep.sources.columns import as_language, storable
from data_prep.sources.json_rows import elements_of, lines_of
from data_prep.text import nltk_words as nltk
from data_prep.text import words
from data_prep.text.nltk_words import nltk_words
from data_prep.url_filter.filter import reject_reason
from data_prep.urls import page_key, split_address
from data_prep.warc.http_response import parse_response
from data_prep.warc.record import HeaderError, Headers, raise_unless_plausible
from lm.storage.parquet_pages import BadPageError, thrift_struct
from tests.data_prep.measured import fetch_punkt
from tests.data_prep.pages import demo_config

CONFIG = demo_config()


def forget() -> None:
    """Clear the caches of words and addresses."""
    word_hashes = HASHES_0_10, HASHES_2024, WORD_HASHES
    for memo in (words.CHUNKS, words.KINDS, words.CUTS, nltk.CHUNKS, *word_hashes, WORD_BITS, NAME_BITS):
        memo.clear()
        memo.room = words.MEMO_CHARACTERS
    header_codec.cache_clear()
    for name in ("is_global", "is_private"):
        vars(IPv4Address)[name].fget.cache_clear()
    nltk_words.cache_clear()
    nltk.CONTEXTS.clear()


def headers_of_a_record(text: str) -> None:
    with contextlib.suppress(HeaderError):
        raise_unless_plausible(Headers(f"WARC/1.1\r\n{text}\r\n\r\n".encode(errors="replace")))


def response(text: str) -> None:
    for block in (text, f"HTTP/1.1 200 OK\r\n{text}\r\n\r\nbody"):
        if (parsed := parse_response(block.encode(errors="replace"))) is not None:
            assert parsed.headers.get(b"content-encoding") is not None


def blocks_of(text: str) -> None:
    with contextlib.suppress(PageLimitError):
        read_blocks(f"<p>{text}", recipe.EXTRACT)


MINHASH_2024 = dataclasses.replace(recipe.MINHASH, normalisation="fineweb_2024")
BAD_WORDS = WordList(frozenset({"spam", "ham and eggs", "a$$"}), whole_words=True)
AS_DATATROVE = dataclasses.replace(CONFIG.url_filter, matching="datatrove")


def words_by_nltk(text: str) -> tuple[str, ...]:
    fetch_punkt()
    return nltk_words(text)


def pieces_of_bytes(text: str) -> Iterator[bytes]:
    data = text.encode(errors="replace")
    return (data[at : at + 1000] for at in range(0, len(data), 1000))


def elements_of_text(text: str) -> None:
    with contextlib.suppress(EOFError):
        collections.deque(elements_of(itertools.chain([b"[{"], pieces_of_bytes(text))), maxlen=0)


def page_header(text: str) -> None:
    with contextlib.suppress(BadPageError, IndexError):
        thrift_struct(text.encode(errors="replace"), 0)


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "decode": lambda text: decode(text.encode("utf-16-le", "replace"), ""),
    "decode ASCII": lambda text: decode(text.encode("ascii", "replace"), ""),
    "header_codec": lambda text: header_codec(f"text/html; {text}"),
    "response": response,
    "headers_of_a_record": headers_of_a_record,
    "blocks_of": blocks_of,
    "normalise": normalise,
    "split_address": split_address,
    "page_key": lambda text: page_key("a.example", text),
    "reject_reason": lambda text: reject_reason(text, CONFIG.url_filter),
    "detect_language": lambda text: detect_language(
        Document(text, "id", "dump", "", "", "x.warc.gz", "", 0.0), recipe.LANGUAGE
    ),
    "split_chunk": lambda text: words.split_chunk("".join(text.split())),
    "measure": lambda text: measure(text, CONFIG),
    "clean": lambda text: clean(text, recipe.C4),
    "band_keys": lambda text: band_keys(text, "dump", recipe.MINHASH),
    "replace_personal_data": lambda text: replace_personal_data(text, recipe.PERSONAL_DATA),
    "replace_as_datatrove": lambda text: replace_personal_data(text, datatrove_0_10.PERSONAL_DATA),
    "reject_as_datatrove": lambda text: reject_reason(f"http://{text}", AS_DATATROVE),
    "nltk_words": words_by_nltk,
    "band_keys_2024": lambda text: band_keys(text, "dump", MINHASH_2024),
    "indic_words": indic_words,
    "word_places": lambda text: list(word_places(text)),
    "bad_words": BAD_WORDS.count,
    "storable": storable,
    "as_language": as_language,
    "hints_of_name": hints_of_name,
    "lines_of": lambda text: sum(1 for _ in lines_of(pieces_of_bytes(text))),
    "elements_of": elements_of_text,
    "thrift_struct": page_header,
}
"""Functions of a text of any length; `extract_text` is tested with whole pages (tests/hostile_pages.py)."""


@dataclass(frozen=True)
class Anywhere:
    """A pattern searched for in the whole text; the examples match it."""

    examples: tuple[str, ...]

    def __init__(self, *examples: str):
        object.__setattr__(self, "examples", examples)


class AtPlace(Anywhere):
    """A pattern matched only at one position, by `match` or `fullmatch`."""


@dataclass(frozen=True)
class Within:
    """A pattern inside a function, tested through the function in FUNCTIONS that calls it."""

    function: str


@dataclass(frozen=True)
class Bounded:
    """A pattern with input of at most this number of characters, however long the text is."""

    characters: int
    why: str


@dataclass(frozen=True)
class Trusted:
    """A pattern without untrusted input."""

    why: str


PATTERNS: dict[str, Anywhere | Within | Bounded | Trusted] = {
    "by_language.labels.PATTERNS": Bounded(1, "a letter"),
    "by_language.splitters.ASCII_WORD": Anywhere("a1.5%"),
    "by_language.splitters.ELISION": Anywhere("l'a"),
    "by_language.splitters.INDIC_MARK": Within("indic_words"),
    "by_language.splitters.INDIC_NUMBER": Within("indic_words"),
    "by_language.splitters.JAPANESE_PARTS": Anywhere("一。二"),
    "config.language.LABEL": Trusted("an option"),
    "engine.tasks.DIGEST": Trusted("names of our own folders"),
    "engine.tasks.delete_other_digests": Trusted("names of our own folders"),
    "shards.write.os_errors": Trusted("what ArrayRecord prints of our own file"),
    "extract.blocks.NOT_SHOWN": Anywhere("\xad\u200b"),
    "dedup.lines.UNITS": Anywhere("a line"),
    "dedup.minhash.WITHOUT_SPACE": Anywhere("日"),
    "dedup.minhash.words_2024": Within("band_keys_2024"),
    "dedup.substrings.PIECE": Within("word_places"),
    "dedup.substrings.WORD": Within("word_places"),
    "quality.bad_words.WORD": Within("bad_words"),
    "quality.bad_words.WordList": Within("bad_words"),
    "urls.ESCAPE": Anywhere("%41"),
    "pii.email.ascii_patterns": Within("replace_as_datatrove"),
    "pii.ip.ANY_IPV4": Anywhere("8.8.4.4"),
    "text.nltk_words.ELLIPSIS": Within("nltk_words"),
    "text.nltk_words.INITIAL": Within("nltk_words"),
    "text.nltk_words.MARK": Within("nltk_words"),
    "text.nltk_words.NUMBER": Within("nltk_words"),
    "text.nltk_words.REALIGNED": Within("nltk_words"),
    "text.nltk_words.TOKEN": Within("nltk_words"),
    "text.nltk_words.CHUNK": Within("nltk_words"),
    "text.nltk_words.PARTING": Within("nltk_words"),
    "text.nltk_words.RULES": Within("nltk_words"),
    "url_filter.filter.HOST_END": Within("reject_as_datatrove"),
    "url_filter.filter.IP_ADDRESS": Within("reject_as_datatrove"),
    "url_filter.filter.NOT_ASCII_WORD": Within("reject_as_datatrove"),
    "urls.BEFORE_HOST": AtPlace(" https://", "a+.-://"),
    "urls.HOST": AtPlace("a.example"),
    "urls.PORT": Anywhere(":8080"),
    "urls.parents": Bounded(253, "a host's name"),
    "url_filter.lists.DOT_OUTSIDE": Anywhere(".a.example.\n"),
    "extract.charset.BETWEEN_TAGS": Anywhere("<p>text</p>"),
    "extract.charset.ATTRIBUTE": Bounded(1024, "PRESCAN_BYTES"),
    "extract.charset.CHARSET_IN_CONTENT": Bounded(1024, "PRESCAN_BYTES"),
    "extract.charset.END_OF_NAME": Bounded(1024, "PRESCAN_BYTES"),
    "extract.charset.END_OF_TAG": Bounded(1024, "PRESCAN_BYTES"),
    "extract.charset.ESCAPES": Anywhere("\x1b$B"),
    "extract.charset.MARKUP": Bounded(1024, "PRESCAN_BYTES"),
    "extract.charset.XML_ENCODING": Bounded(1024, "PRESCAN_BYTES"),
    "extract.charset.header_codec": Within("header_codec"),
    "config.pages.CrawlIndex": Trusted("an option"),
    "config.pages.DOMAIN": Trusted("an option"),
    "config.pages.CRAWL": Trusted("an option"),
    "dedup.minhash.NUMBER": Anywhere("100,00.00"),
    "dedup.minhash.hashes_0_10": Within("band_keys"),
    "engine.attempts.SINCE": Anywhere("since 1.5", "since 123456789012"),
    "engine.ray_tasks.connect": Trusted("an option"),
    "engine.ray_tasks.NODE": Anywhere("node abc,"),
    "extract.UNPRINTABLE": Anywhere("\x07"),
    "extract.hints.UNSEEN_STYLE": Anywhere("display : none", "visibility : hidden"),
    "extract.hints.WORD": Anywhere("nav-bar"),
    "extract.main_text.LETTER": Anywhere("_a"),
    "extract.features.DECLARED_TEXT": Anywhere('"name" : "a\\\\nb"'),
    "extract.features.TYPE": Anywhere('"@type" : [ "NewsArticle"'),
    "language.LATIN_LETTERS": Anywhere("Words"),
    "language.NOT_ASCII": Anywhere("Жуки"),
    "language.OTHER_LETTERS": Anywhere("жуки"),
    "language.NO_LETTERS": Anywhere("don't 12 ’ !"),
    "pii.address.AFTER_HOUSE": AtPlace(", 75002 Paris", ", Suite 12, Springfield, IL 62701"),
    "pii.address.BEFORE_ANNOUNCED": Bounded(52, "WINDOW"),
    "pii.address.BEFORE_HOUSE": Bounded(24, "LONGEST_UNIT"),
    "pii.address.BOXES": Anywhere("Box 123456", "BP 12 34 56"),
    "pii.address.FORCES": Anywhere("PO, AE 09012"),
    "pii.address.FROM_NUMBER": Anywhere("12 Main Street, Apt 4, Springfield, IL 62701", "7 rue de la Paix, 75002 P"),
    "pii.address.HOUSE": Anywhere("Hauptstrasse 12b, 10115 Berlin"),
    "pii.address.HOUSE_AND_NAME": Within("replace_personal_data"),
    "pii.address.NAMES_BACKWARDS": Bounded(52, "WINDOW"),
    "pii.address.OFFICE": Bounded(52, "LONGEST_NAME"),
    "pii.address.PLACE_AFTER": AtPlace(", APO, AE 09012", ", Suite 12, Springfield, IL 62701"),
    "pii.address.PLACE_OF_HOUSE": AtPlace(", 10115 Berlin", ", Suite 12, Springfield, IL 62701"),
    "pii.address.SHIP": Bounded(52, "WINDOW"),
    "pii.address.SMALL_STREET_WORDS": Bounded(52, "WINDOW"),
    "pii.address.TOWN_AFTER": AtPlace(", 75002 Paris", ", Springfield, IL 62701"),
    "pii.address.YEAR": AtPlace("1987 "),
    "pii.email.DOMAIN": Anywhere("@mail.example-site.co.uk"),
    "pii.email.LOCAL_AFTER_TEXT": Bounded(64, "LOCAL_LENGTH"),
    "pii.email.LOCAL_BACKWARDS": Bounded(64, "LOCAL_LENGTH"),
    "pii.iban.CANDIDATE": Anywhere("GB82 WEST 1234 5698 7654 32"),
    "pii.iban.END": Bounded(2, "the last character and the next"),
    "pii.iban.lengths": Trusted("python-stdnum's table"),
    "pii.ip.FOUND": Bounded(64, "CONTEXT"),
    "pii.ip.HEADING": AtPlace(".  Scope"),
    "pii.ip.IPV4": Anywhere("81.2.69.160"),
    "pii.ip.IPV6": Anywhere("2a02:1234::1f"),
    "pii.ip.TWO_COLONS": Anywhere(":12ab:"),
    "pii.ip.WORD": Bounded(64, "CONTEXT"),
    "pii.phone.international_plan": Bounded(15, "MAX_DIGITS"),
    "pii.phone.national_plan": Bounded(15, "MAX_DIGITS"),
    "pii.phone.written_formats": Bounded(15, "MAX_DIGITS"),
    "pii.payment_card.CANDIDATE": Anywhere("4111 1111 1111 1111 123", "3782-822463-10005"),
    "pii.payment_card.CARD_WORD": Bounded(40, "WORD_DISTANCE"),
    "pii.payment_card.ISSUERS": Bounded(19, "a card's digits"),
    "pii.phone.AFTER": AtPlace("-1", " €"),
    "pii.phone.BEFORE": AtPlace("-13: "),
    "pii.phone.BRACKETS": AtPlace("+1 (212) 736 (5)"),
    "pii.phone.DIGITS": Within("replace_personal_data"),
    "pii.phone.EXTENSION": AtPlace(", ext. 123"),
    "pii.phone.NEXT_WORDS": AtPlace(" (office line"),
    "pii.phone.NOT_DIGITS": Anywhere("(212) 736"),
    "pii.phone.NOT_PHONES": AtPlace("2019-11-12 12", "12.50", "1999 12-14"),
    "pii.phone.NO_WORD": Bounded(32, "WORD_DISTANCE"),
    "pii.phone.OTHER_NAME": Bounded(9, "OTHER_NAME_LENGTH"),
    "pii.phone.REST_OF_WORD": Bounded(32, "WORD_DISTANCE"),
    "pii.phone.RUN": Anywhere("+1 (212) 736-5000"),
    "pii.phone.TABLE": Bounded(64, "MAX_DIGITS and what may be between them"),
    "pii.phone.THOUSANDS": AtPlace("123 456.789"),
    "pii.phone.TOKEN": Bounded(32, "WORD_DISTANCE"),
    "pii.phone.pieces": Within("replace_personal_data"),
    "pii.places.Mask": Within("replace_personal_data"),
    "pii.places.NONCHARACTERS": Anywhere("\ufdd0"),
    "quality.c4.CITATION": Anywhere("[123]", "[citation needed]"),
    "quality.repetition.BLANK_LINES": Anywhere("a\n\n\nb"),
    "quality.repetition.LINE_BREAKS": Anywhere("a\nb"),
    "dates.NUMBER": AtPlace("12.5e3"),
    "dates.read_date": Bounded(64, "MOST_CHARACTERS"),
    "sources.columns.LANGUAGE_CODE": AtPlace("en-us-x"),
    "sources.columns.LONE_SURROGATE": Anywhere("\ud800"),
    "common_crawl.files.INDEX_PATH": AtPlace("cc-index/table/cc-main/a.b/c.parquet"),
    "common_crawl.files.PATH": AtPlace("crawl-data/CC-MAIN-2024-10/a.b/c.warc.gz"),
    "sources.formats.JSON_START": AtPlace(" \n[ {", "{"),
    "sources.formats.PARQUET_START": AtPlace("PAR1"),
    "sources.json_rows.ARRAY": AtPlace(" [ {"),
    "sources.json_rows.BETWEEN_ELEMENTS": Anywhere("a,"),
    "sources.json_rows.IN_ELEMENT": Anywhere("a{"),
    "sources.json_rows.IN_STRING": AtPlace('a\\"b'),
    "sources.json_rows.LINE": Anywhere("a\nb"),
    "sources.json_rows.STRING": Anywhere('"a\\"b"'),
    "sources.local.RECORD_TYPE": Anywhere("WARC-Type: response\n"),
    "sources.tfds.NAME": Trusted("an option"),
    "sources.tfds.source_of": Trusted("an option"),
    "url_filter.filter.NEITHER_LETTER_NOR_DIGIT": Anywhere("a-_b"),
    "url_filter.filter.TOKEN": Anywhere("abc1-жук"),
    "url_filter.filter.any_of": Within("reject_reason"),
    "warc.byte_sources.Pattern": Trusted("only takes the patterns of warc.records"),
    "warc.record.HEAD_END": Anywhere("a: b\r\n\r\n"),
    "warc.http_response.CHUNK_SIZE": AtPlace(" 1f ;a=b\r\n"),
    "warc.http_response.MARKUP": Bounded(100, "the begin of a body"),
    "warc.http_response.STATUS": AtPlace("HTTP/1.1 \t200"),
    "warc.pages.BEGINS_AS_HTML": AtPlace(" \n<!DOCTYPE HTML>"),
    "warc.record.ADDRESS": AtPlace("<urn+a:b>"),
    "warc.record.LENGTH": AtPlace("123"),
    "warc.record.LINE": AtPlace("WARC-Type \t: response"),
    "warc.records.ANY": Anywhere("WARC/1.1 \r\nA"),
    "warc.records.FRAME": Anywhere("\x28\xb5\x2f\xfd"),
    "warc.records.MEMBER": Anywhere("\x1f\x8b\x08\x00"),
    "warc.records.START": Anywhere("WARC/1.1 \r\nA"),
    "text.words.ADDRESS": AtPlace("https://me@a-b.example.co.uk:8080/a?b#c"),
    "text.words.INSIDE": Anywhere("a--b...c", "1-2——", "👩\u200d👩"),
    "text.words.MAYBE_CUT": Anywhere("a-b"),
    "text.words.MEASURE": Bounded(4, "LONGEST_MEASURE"),
    "text.words.TOP_DOMAIN": Anywhere(".de"),
    "text.words.WHITE_SPACE": Anywhere("a \n b"),
}  # fmt: skip
"""Every regular expression of data_prep: `module.NAME`, or `module.function` for those inside a function."""
