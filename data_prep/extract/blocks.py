"""Convert HTML to blocks of text, in one pass over the parser's events, without building a tree.

A block is text that a browser separates by line breaks: a paragraph, a heading, a list item, a table row. Inline tags
(<b>, <a>, <span>) neither split a block nor insert a space. Each block has its element; each element has its parent and
the range of blocks in it, so a sum over a part of the page is one subtraction.

libxml2 reads HTML without recursion, at any depth because no tree is built; counts bound the cost.
"""

import itertools
import re
from array import array

import numpy as np

from data_prep.config import ExtractConfig
from data_prep.extract.hints import TAG_BITS, TELLING, hints_of_attributes, hints_of_name

# Their content is not text, or not part of the page's text.
SKIPPED = """
    script style noscript template svg iframe object embed canvas select textarea button audio video map datalist
    annotation annotation-xml noframes dialog applet progress meter
"""
INLINE = """
    a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark nobr q rp rt rtc ruby s samp small
    span strike strong sub sup time tt u var wbr img input link meta base picture source track param area col colgroup
    br math mi mn mo ms mtext mrow msup msub mfrac msqrt semantics mstyle munder mover munderover msubsup mtable mtr mtd
"""
# Effect of a tag on the text around it. The first three begin a block, as do all tags that are not in ROLE.
BLOCK, CELL_OF_ROW, PREFORMATTED, WITHIN_LINE, LINK, LINE_BREAK, META, SKIP, TITLE = range(9)
ROLE = dict.fromkeys(INLINE.split(), WITHIN_LINE) | dict.fromkeys(SKIPPED.split(), SKIP)
ROLE |= {"a": LINK, "br": LINE_BREAK, "title": TITLE}
ROLE |= dict.fromkeys(("meta", "link", "img", "input"), META)
ROLE |= {"td": CELL_OF_ROW, "th": CELL_OF_ROW, "pre": PREFORMATTED}
KINDS = (
    "other", "p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "dt", "dd", "td", "th", "pre", "blockquote", "div",
    "figcaption", "tr", "article", "main", "section", "body", "summary", "caption",
)  # fmt: skip
KIND = {tag: number for number, tag in enumerate(KINDS)}
HEADINGS = frozenset(KIND[tag] for tag in ("h1", "h2", "h3", "h4", "h5", "h6", "dt", "summary"))
CELLS = frozenset(KIND[tag] for tag in ("td", "th", "tr"))
BREAK, CELL = "\x02", "\x03"  # line break and start of a cell within a block; pages cannot contain these characters
MAX_TITLE = 300
NO_DIGITS = bytes.maketrans(b"0123456789", b" " * 10)
NOT_SHOWN = re.compile("[\xad\u200b\ufeff]+")


class PageLimitError(Exception):
    """Raised for a page above a limit; the message is the reason that `extract_text` returns: "html_too_deep", …"""


class UnreadablePageError(Exception):
    """Raised for a page on which the parser or the engine fails."""


class Limits:
    """Parser target (receiver of lxml's events) that only enforces limits on depth, elements and attributes."""

    __slots__ = ("depth", "elements", "max_attributes", "max_depth", "max_elements")

    def __init__(self, config: ExtractConfig):
        self.max_depth, self.max_elements, self.max_attributes = (
            config.max_depth, config.max_elements, config.max_attributes,
        )  # fmt: skip
        self.depth = self.elements = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        if self.depth > self.max_depth or self.elements > self.max_elements or len(attributes) > self.max_attributes:
            self.refuse(attributes)

    def refuse(self, attributes: dict[str, str]) -> None:
        """Raise PageLimitError for the first limit that the page exceeds."""
        if self.depth > self.max_depth:
            raise PageLimitError("html_too_deep")
        if self.elements > self.max_elements:
            raise PageLimitError("html_too_many_elements")
        raise PageLimitError("html_too_many_attributes")

    def end(self, tag: str) -> None:
        self.depth -= 1

    def close(self) -> object:
        return None


def parse(html: str | bytes, target: Limits) -> object:
    """Parse a page, text or UTF-8 bytes, with lxml, which sends its events to `target`. Return target.close(). Raises
    PageLimitError, and UnreadablePageError if lxml fails."""
    from lxml import etree  # ty: ignore[missing-module-member]

    parser = etree.HTMLParser(encoding="utf-8", target=target, huge_tree=True)
    utf8 = html.encode("utf-8", "replace") if isinstance(html, str) else html
    try:
        return etree.fromstring(utf8, parser)
    except etree.LxmlError as error:
        raise UnreadablePageError(f"lxml cannot parse it: {error}") from error


class Blocks:
    """The N blocks (paragraphs and similar texts) and M elements of a page. `texts`, `owner`, `link` and `images` have
    a value per block; `parent`, `kind`, `name`, `own`, `mask`, `first`, `last` one per element. Element 0 is the root.
    BlockReader.close sets the arrays."""

    texts: list[str]
    owner: array[int]
    """Index of the element that directly contains the block."""
    link: array[int]
    """Number of the block's characters that are in links."""
    parent: array[int]
    kind: array[int]
    """Kind of the element's tag, as an index into KINDS."""
    name: array[int]
    """Number for the element's tag and class, without digits: the same for elements with the same tag and class."""
    own: array[int]
    """Hints (words such as "comment", hints.py) in the element's tag and attributes, as bits."""
    mask: array[int]
    """Hints of the element or any of its ancestors, as bits."""
    first: array[int]
    """Index of the element's first block: the number of blocks before the element."""
    last: array[int]
    """Index after the element's last block; it contains the blocks first <= i < last."""
    images: array[int]
    """Number of images on the page before the block's end."""
    forms: int
    """Number of <input> elements."""
    title: str
    address: str
    """The page's own URL, as it declares it (canonical, or og:url)."""
    description: str
    """The page's description for search engines."""
    linked_data: str
    """JSON-LD scripts of the page."""
    types: list[str]
    """Values of og:type and itemtype."""

    def __init__(self):
        self.texts, self.types, self.forms = [], [], 0
        self.title = self.address = self.description = self.linked_data = ""


class BlockReader(Limits):
    """Parser target that converts lxml's events to Blocks.

    It takes half of the time of extraction, for about 2,000 events per page. So `start`, `end` and `data` handle common
    cases inline and leave rare ones to other methods, and it has slots because Python is slower with more than thirty
    attributes (2 % of extraction).
    """

    __slots__ = (
        "blocks", "buffer", "buttons", "first", "images", "in_linked_data", "in_title", "last", "link",
        "link_characters", "linked_data", "links", "names", "noscript_characters", "noscripts", "numbers", "open",
        "owner", "parent", "pictures", "preformatted", "skipped", "sort", "sorts", "texts", "title", "without_scripts",
    )  # fmt: skip

    def __init__(self, config: ExtractConfig, without_scripts: bool = False):
        super().__init__(config)
        self.without_scripts = without_scripts
        """Whether <noscript> is read as text."""
        self.skipped = self.noscripts = self.noscript_characters = 0
        self.pictures = 0
        self.sorts = [0], [0], [0]
        """Kind, name and own hints (Blocks) of each sort of element; the first is of element 0."""
        self.names: dict[str, int] = {}
        """{tag and class: sort} of elements without hints in other attributes."""
        self.numbers: dict[bytes, int] = {}
        self.buttons: list[bool] = []
        """For each open button, whether its text is skipped."""
        self.links = self.link_characters = self.preformatted = 0
        self.in_title = self.in_linked_data = False
        self.title: list[str] = []
        self.linked_data: list[str] = []
        self.blocks = Blocks()
        # Columns of Blocks: appending to lists is three times as fast as to arrays.
        self.texts = self.blocks.texts
        self.owner: list[int] = []
        self.link: list[int] = []
        self.images: list[int] = []
        self.parent, self.sort, self.first, self.last = [-1], [0], [0], [0]
        self.open = [0]
        self.buffer: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        if self.depth > self.max_depth or self.elements > self.max_elements or len(attributes) > self.max_attributes:
            self.refuse(attributes)
        role = ROLE.get(tag, BLOCK)
        if role <= PREFORMATTED:
            if self.buffer:
                if role == CELL_OF_ROW:
                    self.buffer.append(CELL)
                else:
                    self.flush()
            if role == PREFORMATTED:
                self.preformatted += 1
            name = f"{tag} {attributes['class']}" if "class" in attributes else tag
            sort = self.names.get(name) or self.add_name(name, tag)
            if not TELLING.isdisjoint(attributes):
                sort = self.sort_by(sort, attributes)
            self.sort.append(sort)
            above = self.open[-1]
            self.open.append(len(self.parent))
            self.parent.append(above)
            self.first.append(len(self.texts))
            self.last.append(0)
        elif role == WITHIN_LINE:
            pass
        elif role == LINK:
            self.links += 1
        elif role == LINE_BREAK:
            self.buffer.append(BREAK)
        elif role == META:
            self.read_meta(tag, attributes)
        elif role == SKIP:
            self.start_skipped(tag, attributes)
        else:
            self.in_title = not self.skipped

    def read_meta(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "img":
            self.pictures += 1
        elif tag == "input":
            self.blocks.forms += 1
        elif tag == "link":
            if attributes.get("rel") == "canonical":
                self.blocks.address = attributes.get("href", "")
        elif attributes.get("property") == "og:type":
            self.blocks.types.append(attributes.get("content", ""))
        elif attributes.get("name") == "description" or attributes.get("property") == "og:description":
            self.blocks.description = max(self.blocks.description, attributes.get("content", ""), key=len)
        elif attributes.get("property") == "og:url":
            self.blocks.address = self.blocks.address or attributes.get("content", "")

    def start_skipped(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "button":
            if self.buttons and self.buttons[-1]:  # the outer button was not closed: its text ends here
                self.skipped -= 1
                self.buttons[-1] = False
            kind = self.sorts[0][self.sort[self.open[-1]]]
            self.buttons.append(kind not in HEADINGS)  # a button in a heading expands the text below it
            self.skipped += self.buttons[-1]
        elif tag == "noscript":
            self.noscripts += 1
            self.skipped += not self.without_scripts
        else:
            self.skipped += 1
            self.in_linked_data = tag == "script" and attributes.get("type") == "application/ld+json"

    def add_name(self, name: str, tag: str) -> int:
        """Register a combination of tag and class, `name`, and return its index in self.sorts. Combinations that differ
        only in digits have the same Blocks.name."""
        hints = TAG_BITS.get(tag, 0) | hints_of_name(name.removeprefix(tag))
        bare = name.encode("utf-8", "surrogatepass").translate(NO_DIGITS)  # three times as fast on bytes as on text
        number = self.numbers.setdefault(bare, len(self.numbers) + 1)
        self.names[name] = sort = self.add_sort(KIND.get(tag, 0), number, hints)
        return sort

    def add_sort(self, kind: int, number: int, hints: int) -> int:
        kinds, numbers, own = self.sorts
        kinds.append(kind)
        numbers.append(number)
        own.append(hints)
        return len(kinds) - 1

    def sort_by(self, sort: int, attributes: dict[str, str]) -> int:
        """Return the index in self.sorts for an element: `sort`, the index for its tag and class, or a new index if its
        other attributes have hints."""
        if "itemtype" in attributes:
            self.blocks.types.append(attributes["itemtype"])
        hints = hints_of_attributes(attributes)
        if not hints:
            return sort
        kinds, numbers, own = self.sorts
        return self.add_sort(kinds[sort], numbers[sort], own[sort] | hints)

    def end(self, tag: str) -> None:
        self.depth -= 1
        role = ROLE.get(tag, BLOCK)
        if role <= PREFORMATTED:
            if self.buffer and role != CELL_OF_ROW:
                self.flush()
            if role == PREFORMATTED:
                self.preformatted -= 1
            self.last[self.open.pop()] = len(self.texts)
        elif role == LINK:
            self.links -= 1
        elif role == SKIP:
            self.end_skipped(tag)
        elif role == TITLE:
            self.in_title = False

    def end_skipped(self, tag: str) -> None:
        if tag == "button":
            self.skipped -= self.buttons.pop()
        elif tag == "noscript":
            self.noscripts -= 1
            self.skipped -= not self.without_scripts
        else:
            self.skipped -= 1
            self.in_linked_data = False

    def data(self, text: str) -> None:
        if self.in_title:
            self.title.append(text)
        elif not self.skipped:
            if not self.buffer and text.isspace():  # most of the text between two tags
                return
            self.buffer.append(text)
            if self.links:
                self.link_characters += len(text)
        elif self.in_linked_data:
            self.linked_data.append(text)
        elif self.skipped == self.noscripts:
            self.noscript_characters += len(text) - text.count(" ")

    def flush(self) -> None:
        """Convert the buffered text to a block, or to several if it contains empty lines."""
        text = "".join(self.buffer)
        self.buffer.clear()
        link, self.link_characters = self.link_characters, 0
        if self.preformatted or BREAK in text or CELL in text:
            for part in self.parts(text):
                self.add_block(part, link, len(text))
        else:
            self.add_block(" ".join(text.split()), link, len(text))

    def add_block(self, text: str, link: int, size: int) -> None:
        """Add a block of `text`, a part of a longer text of `size` characters, `link` of them in links. Blocks.link of
        the block is its proportional share of `link`."""
        if not text.isascii():
            text = shown(text)
        if text:
            self.texts.append(text)
            self.owner.append(self.open[-1])
            self.images.append(self.pictures)
            self.link.append(min(link * len(text) // size, len(text)) if link else 0)

    def parts(self, text: str) -> list[str]:
        """Return the parts of a text between empty lines, with " | " between table cells; <pre> stays whole."""
        if self.preformatted:
            return [NOT_SHOWN.sub("", text.replace(BREAK, "\n").replace(CELL, "\t")).strip("\n")]
        if BREAK in text:
            lines = [" ".join(line.split()) for line in text.split(BREAK)]
            texts = ["\n".join(group) for filled, group in itertools.groupby(lines, bool) if filled]
        else:
            texts = [" ".join(text.split())]
        if CELL in text:
            texts = [" | ".join(filter(None, (cell.strip() for cell in part.split(CELL)))) for part in texts]
        return texts

    def close(self) -> None:
        if self.buffer:
            self.flush()
        self.last[0] = len(self.texts)
        blocks = self.blocks
        for column in ("owner", "link", "images", "parent", "first", "last"):
            setattr(blocks, column, array("q", getattr(self, column)))
        sort = np.frombuffer(array("q", self.sort), np.int64)  # twice as fast as converting a list to NumPy
        kind, name, own = (np.array(column)[sort] for column in self.sorts)
        mask, above = own.copy(), np.maximum(blocks.parent, 0)
        while above.any():  # the element 1, 2, 4, 8, ... levels above each
            mask |= mask[above]
            above = above[above]
        for column, values in (("kind", kind), ("name", name), ("own", own), ("mask", mask)):
            setattr(blocks, column, array("q", values.tobytes()))
        blocks.title = " ".join("".join(self.title).split())[:MAX_TITLE]
        blocks.linked_data = "".join(self.linked_data)


def shown(text: str) -> str:
    """Return `text` without soft hyphens, zero-width spaces and byte order marks. These are rare, and searching for
    each is twenty times faster than the regex."""
    if "\xad" in text or "\u200b" in text or "\ufeff" in text:
        return NOT_SHOWN.sub("", text).strip()
    return text


def read_blocks(html: str | bytes, config: ExtractConfig) -> Blocks:
    """Return the blocks of a page. Raises like `parse`.

    If most of the text is in <noscript>, as in a forum whose posts are drawn by scripts, the page is read as if scripts
    were disabled.
    """
    reader = BlockReader(config)
    parse(html, reader)
    if reader.noscript_characters > sum(map(len, reader.blocks.texts)):
        reader = BlockReader(config, without_scripts=True)
        parse(html, reader)
    return reader.blocks
