"""Bytes of a web page -> text, in the order of the Encoding and HTML standards (encoding.spec.whatwg.org;
html.spec.whatwg.org, "determining the character encoding"): byte order mark, HTTP header, <meta> or XML declaration in
the first 1,024 bytes, and where nothing is declared UTF-8 if the bytes are that, else what chardet detects, else
windows-1252.

One thing is stricter than in a browser: a declaration that most of the page's non-ASCII bytes contradict is not
believed. Bytes without a meaning become U+FFFD; none is left out.
"""

import codecs
import functools
import re
from email.message import Message

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
PRESCAN_BYTES = 1024
SAMPLE_BYTES = 32_768
BETWEEN_TAGS = re.compile(rb"[^<>]+")  # no letter of an encoding of the web has one of them inside
ESCAPES = re.compile(rb"\x1b\$[@B]")  # ISO-2022-JP turns to Japanese by these
COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
META_CHARSET = re.compile(rb"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([^\s"'/>;]+)""", re.IGNORECASE)
XML_ENCODING = re.compile(rb"""^\s*<\?xml\b[^>]*?\bencoding\s*=\s*["']([^"']+)""", re.IGNORECASE)

# Labels that mean a larger encoding on the web than their name says, by the name Python gives them.
WEB_MEANING = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "utf-16": "utf-16-le",
}
WEB_CODECS = {
    "utf-8", "utf-16-le", "utf-16-be", "gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949",
    "cp866", "cp874", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic",
    *(f"cp125{i}" for i in range(9)), *(f"iso8859-{i}" for i in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
}  # fmt: skip
# Labels of the standard that Python does not know, after "x-" was taken off.
MORE_LABELS = {
    "unicode-1-1-utf-8": "utf-8",
    "gb_2312-80": "gb18030",
    "iso-8859-8-i": "iso8859-8",
    "iso-8859-8-e": "iso8859-8",
    "windows-949": "cp949",
    "windows-874": "cp874",
    "dos-874": "cp874",
    "user-defined": "cp1252",
}


def codec_of(label: str) -> str | None:
    """The Python codec for an encoding label of the web; None for what is no such label ("utf-7", "base64", …)."""
    label = label.strip().lower()
    while label.startswith("x-"):
        label = label[2:]
    if label in MORE_LABELS:
        return MORE_LABELS[label]
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    name = WEB_MEANING.get(name, name)
    return name if name in WEB_CODECS else None


@functools.lru_cache(1024)
def header_codec(content_type: str) -> str | None:
    """What the charset parameter of an HTTP Content-Type names."""
    message = Message()
    message["Content-Type"] = re.sub(r"[\r\n]", " ", content_type)
    label = message.get_param("charset")
    return codec_of(label) if isinstance(label, str) else None


def meta_codec(body: bytes) -> str | None:
    """What the page's head declares. A page that could be searched as ASCII is not UTF-16, whatever it says."""
    head = COMMENT.sub(b"", body[:PRESCAN_BYTES])
    match = META_CHARSET.search(head) or XML_ENCODING.search(head)
    codec = codec_of(match[1].decode("latin-1")) if match else None
    return "utf-8" if codec and codec.startswith("utf-16") else codec


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
    return codec_of(label) if label else None


def decode(body: bytes, content_type: str) -> str:
    """The text of a page. Never raises; U+FFFD stands for what the chosen encoding cannot mean."""
    for mark, codec in BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(codec, "replace")
    declared = [codec for codec in (header_codec(content_type), meta_codec(body)) if codec]
    if not declared and body.isascii() and ESCAPES.search(body):
        declared = ["iso2022_jp"]
    for codec in [*declared, "utf-8"]:
        try:
            return body.decode(codec)
        except UnicodeDecodeError:
            text = body.decode(codec, "replace")
        # One damaged letter, or a body cut in the middle of one, is no reason to spoil the others.
        unreadable = text.count("\ufffd")
        readable = len(text) - len(text.encode("ascii", "ignore")) - unreadable
        if readable >= unreadable:
            return text
    return body.decode(detected_codec(body) or "cp1252", "replace")
