"""Bytes of a web page -> text, as the Encoding and HTML standards have it (encoding.spec.whatwg.org;
html.spec.whatwg.org, "determining the character encoding"): byte order mark, HTTP header, <meta> or XML declaration in
the first 1,024 bytes, else UTF-8 if the bytes are valid, else what chardet detects, else windows-1252.

Stricter than a browser: a declaration that most of the non-ASCII bytes contradict is ignored. Invalid bytes become
U+FFFD.
"""

import codecs
import functools
import re
from email.message import Message

import webencodings

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
UTF16_XML = {codec: "<?x".encode(codec) for codec in ("utf-16-le", "utf-16-be")}
PRESCAN_BYTES = 1024
SAMPLE_BYTES = 32_768
LONGEST_CONTENT_TYPE = 1024  # characters of the header that are read
BETWEEN_TAGS = re.compile(rb"[^<>]+")  # no letter of an encoding of the web has one of them inside
ESCAPES = re.compile(rb"\x1b\$[@B]")  # ISO-2022-JP turns to Japanese by these
REPLACEMENT = "replacement"
# Where the codec is not the one that webencodings uses: GBK is read as GB18030, which contains it, and the private
# characters of x-user-defined are no text, so that it is windows-1252 in an HTTP header too, as the standard has it in
# a <meta>.
CODECS = {"gbk": "gb18030", "x-user-defined": "cp1252", "replacement": REPLACEMENT}
# chardet's names that are no labels of the standard.
DETECTED = {
    "CP874": "windows-874",
    "CP932": "shift_jis",
    "CP949": "euc-kr",
    "MacCyrillic": "x-mac-cyrillic",
    "MacRoman": "macintosh",
}

# Tags as the standard's prescan sees them. Quantifiers are possessive: no byte is read twice.
BLANK = rb"[\t\n\f\r ]"
BLANKS = rb"[/\t\n\f\r ]*+"
EQUALS = BLANK + rb"*+=" + BLANK + rb"*+"
VALUE = rb"""(?:"([^"]*+)"|'([^']*+)'|(["'])|([^%s\t\n\f\r ]*+))"""
MARKUP = re.compile(rb"<(?:(?P<comment>!--)|(?P<meta>meta)(?=/|" + BLANK + rb")|(?P<tag>/?[a-z])|[!/?])", re.IGNORECASE)
END_OF_NAME = re.compile(rb">|" + BLANK)
ATTRIBUTE = re.compile(BLANKS + rb"([^/>\t\n\f\r ][^/>=\t\n\f\r ]*+)(?:" + EQUALS + VALUE % b">" + rb")?")
END_OF_TAG = re.compile(BLANKS + rb"(?=>)")
CHARSET_IN_CONTENT = re.compile(rb"charset" + EQUALS + VALUE % b";", re.IGNORECASE)
XML_ENCODING = re.compile(rb"""<\?xml[^>]*?encoding[\0- ]*+=[\0- ]*+(?:"([^">]*)"|'([^'>]*)')""")


def codec_of(label: str) -> str | None:
    """The Python codec for a label of the Encoding standard; None for what is no such label ("utf-7", "base64", …).

    REPLACEMENT for those of encodings that no browser reads any more ("iso-2022-kr", "hz-gb-2312", …).
    """
    encoding = webencodings.lookup(label) if label.isascii() else None
    return CODECS.get(encoding.name, encoding.codec_info.name) if encoding else None


@functools.lru_cache(1024)
def header_codec(content_type: str) -> str | None:
    """What the charset parameter of an HTTP Content-Type names."""
    message = Message()
    # The library takes quadratic time over quoted semicolons.
    message["Content-Type"] = re.sub(r"[\r\n]", " ", content_type[:LONGEST_CONTENT_TYPE])
    label = message.get_param("charset")
    return codec_of(label) if isinstance(label, str) else None


def meta_codec(body: bytes) -> str | None:
    """What the first PRESCAN_BYTES of a page declare, as the HTML standard's prescan finds it: the first <meta> that
    names an encoding there is, by `charset` or by `content` beside http-equiv="content-type", else the XML declaration.

    A page that could be searched as ASCII is not UTF-16, whatever it says.
    """
    head = body[:PRESCAN_BYTES]
    for codec, start in UTF16_XML.items():
        if head.startswith(start):
            return codec
    codec = declared_by_meta(head)
    if not codec and (match := XML_ENCODING.match(head)):
        codec = codec_of((match[1] or match[2] or b"").decode("latin-1"))
    return "utf-8" if codec and codec.startswith("utf-16") else codec


def declared_by_meta(head: bytes) -> str | None:
    """The codec of the first <meta> with a label that is one; what is cut off by the end of `head` does not count."""
    position = 0
    while match := MARKUP.search(head, position):
        if match["comment"]:
            position = head.find(b"-->", match.start() + 2)  # "<!-->" is a whole comment
        elif match["meta"]:
            attributes, position = attributes_at(head, match.end())
            label = attributes.get(b"charset")
            if label is None and attributes.get(b"http-equiv", b"").lower() == b"content-type":
                content = CHARSET_IN_CONTENT.search(attributes.get(b"content", b""))
                label = content and (content[1] or content[2] or content[4])
            if position >= 0 and (codec := codec_of((label or b"").decode("latin-1"))):
                return codec
        elif match["tag"]:
            end = END_OF_NAME.search(head, match.end())
            position = attributes_at(head, end.start())[1] if end else -1
        else:
            position = head.find(b">", match.end())
        if position < 0:
            return None
    return None


def attributes_at(head: bytes, position: int) -> tuple[dict[bytes, bytes], int]:
    """The attributes of the tag that goes on at `position`, of equal names the first, and where its ">" is; -1 where it
    does not end."""
    attributes: dict[bytes, bytes] = {}
    while match := ATTRIBUTE.match(head, position):
        name, double_quoted, single_quoted, never_closed, unquoted = match.groups()
        if never_closed:
            return attributes, -1
        attributes.setdefault(name.lower(), double_quoted or single_quoted or unquoted or b"")
        position = match.end()
    end = END_OF_TAG.match(head, position)
    return attributes, end.end() if end else -1


def detected_codec(body: bytes) -> str | None:
    """What the text between the tags looks like, by SAMPLE_BYTES of its pieces that are not ASCII."""
    from chardet import detect

    sample, size = [], 0
    for match in BETWEEN_TAGS.finditer(body):
        piece = match[0]
        if not piece.isascii():
            sample.append(piece[:SAMPLE_BYTES])
            size += len(sample[-1])
            if size >= SAMPLE_BYTES:
                break
    label = detect(b"\n".join(sample))["encoding"] if sample else None
    codec = codec_of(DETECTED.get(label, label)) if label else None
    return None if codec == REPLACEMENT else codec


def decode(body: bytes, content_type: str) -> str:
    """The text of a page; U+FFFD stands for what the chosen encoding cannot mean.

    Raises UnicodeError for a page declared to be in an encoding that no browser reads, by the standard's order.
    """
    return text_and_codec(body, content_type)[0]


def text_and_codec(body: bytes, content_type: str) -> tuple[str, str | None]:
    """(what `decode` gives, the codec that read the whole body without a fault, else None)."""
    for mark, codec in BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(codec, "replace"), None
    declared = [codec for codec in (header_codec(content_type), meta_codec(body)) if codec]
    if not declared and body.isascii() and ESCAPES.search(body):
        declared = ["iso2022_jp"]
    for codec in [*declared, "utf-8"]:
        if codec == REPLACEMENT:
            if body.isascii():  # all of these encodings are of 7 bits
                raise UnicodeError("declared to be in an encoding that the web has given up")
            continue
        try:
            return body.decode(codec), codec
        except UnicodeDecodeError:
            text = body.decode(codec, "replace")
        # One damaged letter, or a body cut in the middle of one, is no reason to spoil the others.
        unreadable = text.count("\ufffd")
        readable = len(text) - len(text.encode("ascii", "ignore")) - unreadable
        if readable >= unreadable:
            return text, None
    return body.decode(detected_codec(body) or "cp1252", "replace"), None
