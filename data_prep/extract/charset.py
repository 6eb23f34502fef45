"""Decode the bytes of a web page by the Encoding and HTML standards (encoding.spec.whatwg.org; html.spec.whatwg.org,
"determining the character encoding"): byte order mark, HTTP header, <meta> or XML declaration in the first 1,024 bytes,
else UTF-8 if the bytes are valid, else the encoding that chardet detects, else windows-1252.

Stricter than browsers: a declaration that most of the non-ASCII bytes contradict is ignored. Invalid bytes become
U+FFFD.
"""

import codecs
import functools
import re
from email.message import Message

import webencodings

BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
UTF16_XML = {codec: "<?x".encode(codec) for codec in ("utf-16-le", "utf-16-be")}
PRESCAN_BYTES = 1024
SAMPLE_BYTES = 32_768
LONGEST_CONTENT_TYPE = 1024  # characters of the header to read
BETWEEN_TAGS = re.compile(rb"[^<>]+")  # no web encoding uses these bytes within a character
ESCAPES = re.compile(rb"\x1b\$[@B]")  # ISO-2022-JP switches to Japanese by these
REPLACEMENT = "replacement"
# Exceptions to the codecs of webencodings. GBK is read as GB18030, its superset. x-user-defined has only private
# characters, so it is windows-1252 in an HTTP header too, as in a <meta> by the standard.
CODECS = {"gbk": "gb18030", "x-user-defined": "cp1252", "replacement": REPLACEMENT}
# chardet's names that are not labels of the standard.
DETECTED = {
    "CP874": "windows-874",
    "CP932": "shift_jis",
    "CP949": "euc-kr",
    "MacCyrillic": "x-mac-cyrillic",
    "MacRoman": "macintosh",
}

# Tags as the standard's prescan parses them. Quantifiers are possessive, so no byte is read twice.
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
    """Return the Python codec for a label of the Encoding standard, such as "latin1"; REPLACEMENT if browsers no longer
    support it ("iso-2022-kr", "hz-gb-2312", …); None for other labels ("utf-7", "base64", …)."""
    encoding = webencodings.lookup(label) if label.isascii() else None
    return CODECS.get(encoding.name, encoding.codec_info.name) if encoding else None


@functools.lru_cache(1024)
def header_codec(content_type: str) -> str | None:
    """Return the codec for the charset parameter of an HTTP Content-Type, or None; see `codec_of`."""
    message = Message()
    # The library takes quadratic time over quoted semicolons.
    message["Content-Type"] = re.sub(r"[\r\n]", " ", content_type[:LONGEST_CONTENT_TYPE])
    label = message.get_param("charset")
    return codec_of(label) if isinstance(label, str) else None


def meta_codec(body: bytes) -> str | None:
    """Return the codec that a page declares in its first PRESCAN_BYTES, by the HTML standard's prescan: in the first
    <meta> with a valid encoding (`charset`, or `content` with http-equiv="content-type"), else in the XML declaration.

    A declaration of UTF-16 counts as UTF-8, because the prescan could read the page as ASCII.
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
    """Return the codec of the first <meta> with a valid encoding in `head`, or None. Ignores a tag that is cut off."""
    position = 0
    while match := MARKUP.search(head, position):
        if match["comment"]:
            position = head.find(b"-->", match.start() + 2)  # "<!-->" is a complete comment
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
    """Parse the attributes of a tag from `position` on. Return ({name: value}, with the first value of each name;
    position of the tag's ">", or -1 if the tag does not end)."""
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
    """Return the codec that chardet detects in SAMPLE_BYTES of non-ASCII text between tags; None if it finds none."""
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
    """Return the page's text; invalid bytes become U+FFFD. Raises UnicodeError, as the standard requires, if the page
    declares an encoding that browsers no longer support."""
    return text_and_codec(body, content_type)[0]


def text_and_codec(body: bytes, content_type: str) -> tuple[str, str | None]:
    """Return (text as by `decode`, codec). The codec is the declared one, or UTF-8 if the page is valid UTF-8. It is
    None if the encoding was guessed or given by a byte order mark, or a byte was invalid. Raises UnicodeError like
    `decode`."""
    for mark, codec in BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(codec, "replace"), None
    declared = [codec for codec in (header_codec(content_type), meta_codec(body)) if codec]
    if not declared and body.isascii() and ESCAPES.search(body):
        declared = ["iso2022_jp"]
    for codec in [*declared, "utf-8"]:
        if codec == REPLACEMENT:
            if body.isascii():  # all of these encodings use 7 bits
                raise UnicodeError("declared in an encoding that the web has abandoned")
            continue
        try:
            return body.decode(codec), codec
        except UnicodeDecodeError:
            text = body.decode(codec, "replace")
        # Tolerate a few damaged characters, e.g. a body that is cut in the middle of one.
        unreadable = text.count("\ufffd")
        readable = len(text) - len(text.encode("ascii", "ignore")) - unreadable
        if readable >= unreadable:
            return text, None
    return body.decode(detected_codec(body) or "cp1252", "replace"), None
