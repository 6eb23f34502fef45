"""Hints: words such as "comment" in the tags, classes and roles of the elements around a text, as bits of one integer.

Authors name the parts of a page by their purpose ("comment-list", "sidebar", "entry-content"), as Readability (2009)
noticed. The bits record the words in a name; the fitted trees weigh them.
"""

import re

from data_prep.text.words import Memo

# hint -> stems to find within each word of a class or id; "=stem" must be the whole word.
WORDS = {
    "comment": "comment disqus repl respon feedback discuss",
    "social": "share sharing social follow facebook twitter whatsapp pinterest addthis",
    "related": "relat recommend similar also suggest popular trending latest recent =more =most teaser =next =prev "
    "outbrain taboola promo",
    "side": "sidebar widget rail secondary complementary aside =right =left column",
    "navigation": "nav menu crumb pagina pager =toc skip =tabs toolbar topbar",
    "foot": "foot copyright legal colophon disclaimer",
    "head": "header masthead banner logo hero brand",
    "advert": "=ad =ads advert sponsor dfp gpt affiliate commercial adsense",
    "meta": "meta byline author date time =tag =tags categor posted publish credit info =bio views dek kicker",
    "caption": "caption figure image =img photo gallery media slide carousel video player thumb",
    "popup": "modal popup overlay cookie consent gdpr subscri newsletter signup login signin paywall notice alert "
    "lightbox dialog tooltip dropdown",
    "unseen": "hidden hide =sr reader visually collapse",
    "article_name": "article entry story post page main news blog prose markdown richtext mediawiki",
    "body_name": "content body text",
    "list": "list grid card item feed archive result =row tile",
    "title": "title headline heading",
    "product": "product price cart =buy shop sku spec descri review rating",
    "forum": "thread topic message forum answer question bbcode usertext",
    "control": "form search input filter sort button =btn =cta contact",
    "note": "note reference cite biblio source abstract summary intro lead excerpt faq",
}
TAGS = (
    "nav", "header", "footer", "aside", "main", "article", "form", "table", "li", "figure", "section", "blockquote",
    "td", "dl",
)  # fmt: skip
HINTS = (*WORDS, *(f"<{tag}>" for tag in TAGS), "hidden", "article_body")
BIT = {hint: 1 << number for number, hint in enumerate(HINTS)}

STEMS = [(stem, BIT[hint]) for hint, stems in WORDS.items() for stem in stems.split() if stem[0] != "="]
WHOLE = {stem[1:]: BIT[hint] for hint, stems in WORDS.items() for stem in stems.split() if stem[0] == "="}
WORD = re.compile("[a-z]+")
LETTERS = bytes(byte if chr(byte).islower() else ord(" ") for byte in bytes(range(128)).lower()).ljust(256)
"""Table for bytes.translate: letters become lower case, all other bytes blanks."""

TAG_BITS = {tag: BIT[f"<{tag}>"] for tag in TAGS}
ROLES = {
    "navigation": BIT["<nav>"], "menu": BIT["<nav>"], "banner": BIT["<header>"], "contentinfo": BIT["<footer>"],
    "complementary": BIT["<aside>"], "main": BIT["<main>"], "article": BIT["<article>"], "search": BIT["<form>"],
    "dialog": BIT["hidden"],
}  # fmt: skip
ITEM_TYPES = {
    "Comment": BIT["comment"], "UserComments": BIT["comment"], "WPSideBar": BIT["side"], "WPFooter": BIT["<footer>"],
    "WPHeader": BIT["<header>"], "SiteNavigationElement": BIT["<nav>"], "ImageObject": BIT["caption"],
}  # fmt: skip
ITEM_PROPERTIES = dict.fromkeys(("articleBody", "text", "description"), BIT["article_body"])
UNSEEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden")


def word_bits(letters: bytes) -> int:
    word = letters.decode()
    bits = WHOLE.get(word, 0)
    for stem, bit in STEMS:
        if stem in word:
            bits |= bit
    return bits


WORD_BITS = Memo(word_bits)


def name_bits(name: str) -> int:
    if not name.isascii():  # some non-ASCII capitals have an ASCII lower case, e.g. the Kelvin sign
        name = " ".join(WORD.findall(name.lower()))
    bits = 0
    for word in name.encode().translate(LETTERS).split():  # four times as fast as a regex
        bits |= WORD_BITS[word]
    return bits


NAME_BITS = Memo(name_bits)


def hints_of_name(name: str) -> int:
    """Return the hints (words such as "comment" or "sidebar") in a class, an id or a heading, as bits (see BIT)."""
    return NAME_BITS[name]


OTHER_ATTRIBUTES = frozenset(("role", "itemprop", "itemtype", "style", "hidden", "aria-hidden"))
TELLING = OTHER_ATTRIBUTES | {"id"}
"""Attributes other than the class that can have hints."""


def hints_of_attributes(attributes: dict[str, str]) -> int:
    """Return the hints in an element's attributes other than the class, such as id, role and style, as bits (see
    BIT)."""
    bits = hints_of_name(name) if (name := attributes.get("id")) else 0
    if OTHER_ATTRIBUTES.isdisjoint(attributes):
        return bits
    bits |= ROLES.get(attributes.get("role", ""), 0)
    bits |= ITEM_PROPERTIES.get(attributes.get("itemprop", ""), 0)
    if item_type := attributes.get("itemtype"):
        bits |= ITEM_TYPES.get(item_type.rpartition("/")[2], 0)
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        bits |= BIT["hidden"]
    if (style := attributes.get("style")) and UNSEEN_STYLE.search(style):
        bits |= BIT["hidden"]
    return bits
