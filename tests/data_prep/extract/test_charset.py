import random

import chardet
import pytest

from data_prep.extract.charset import PRESCAN_BYTES, codec_of, decode, meta_codec
from tests.data_prep.encoding_labels import CODEC_OF_LABEL

TEXT = "<p>Grüße, naïve café – “quoted” €"


RUSSIAN, KOI8 = '<meta charset="utf-8"><p>Привет', "<meta charset=koi8-r><p>Привет, мир"
XML = '<?xml version="1.0"?><p>Grüße'
PAGES = {
    "byte order mark before the header": (b"\xef\xbb\xbf" + TEXT.encode(), "text/html; charset=windows-1251", TEXT),
    "byte order mark of UTF-16": (b"\xff\xfe" + TEXT.encode("utf-16-le"), "text/html; charset=utf-8", TEXT),
    "byte order mark, big-endian": (b"\xfe\xff" + TEXT.encode("utf-16-be"), "", TEXT),
    "header before <meta>": (RUSSIAN.encode("cp1251"), 'text/html; Charset="Windows-1251"', RUSSIAN),
    "unknown label in the header": (KOI8.encode("koi8-r"), "text/html; charset=nonsense", KOI8),
    "undeclared UTF-8": (TEXT.encode(), "", TEXT),
    "undeclared windows-1252": (TEXT.encode("cp1252"), "", TEXT),
    "ISO-8859-1 means windows-1252": (TEXT.encode("cp1252"), "text/html; charset=ISO-8859-1", TEXT),
    "contradicted by the bytes": (TEXT.encode("cp1252"), "text/html; charset=utf-8", TEXT),
    "abandoned, but contradicted": (TEXT.encode(), "text/html; charset=hz-gb-2312", TEXT),
    "letter cut off": ((TEXT + "é").encode()[:-1], "", TEXT + "\ufffd"),
    "letter cut off, declared": ((TEXT + "é").encode()[:-1], "text/html; charset=utf-8", TEXT + "\ufffd"),
    "U+FFFD of the page itself": ("caf\ufffd".encode(), "", "caf\ufffd"),
    "XML in UTF-16": (XML.encode("utf-16-le"), "", XML),
    "XML in UTF-16, big-endian": (XML.encode("utf-16-be"), "", XML),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_decoded(name):
    body, content_type, text = PAGES[name]
    assert decode(body, content_type) == text


def test_only_meta_in_the_first_1024_bytes_counts():
    late = "<p>" + " " * 1024 + "<meta charset=koi8-r>Die Größe des Müllers, Cafés und Süßes für die Mädchen"
    assert decode(late.encode("cp1252"), "") == late


SENTENCES = {
    "cp1251": "Мельник отправился в путь ещё до рассвета, и дорога в деревню была белой от инея.",
    "koi8-r": "Мельник отправился в путь ещё до рассвета, и дорога в деревню была белой от инея.",
    "cp932": "粉屋は夜明け前に二袋の穀物を荷車に積んで出発し、村への道は霜で白くなっていた。",
    "euc_jp": "粉屋は夜明け前に二袋の穀物を荷車に積んで出発し、村への道は霜で白くなっていた。",
    "iso2022_jp": "粉屋は夜明け前に二袋の穀物を荷車に積んで出発し、村への道は霜で白くなっていた。",
    "cp949": "방앗간 주인은 동이 트기 전에 곡식 두 자루를 수레에 싣고 길을 나섰고 마을로 가는 길은 하얗게 얼어 있었다.",
    "gb18030": "磨坊主在天亮之前就带着两袋粮食出发了，通往村子的路上结满了白霜。",
    "big5hkscs": "磨坊主在天亮之前就帶著兩袋糧食出發了，通往村子的路上結滿了白霜。",
    "cp1253": "Ο μυλωνάς ξεκίνησε πριν ξημερώσει και ο δρόμος για το χωριό ήταν άσπρος από την πάχνη.",
    "cp1255": "הטוחן יצא לדרך לפני עלות השחר עם שני שקי תבואה בעגלתו, והדרך אל הכפר הייתה לבנה מכפור.",
    "cp1256": "انطلق الطحان قبل الفجر ومعه كيسان من الحبوب على عربته وكان الطريق إلى القرية أبيض من الصقيع.",
    "cp874": "คนสีข้าวออกเดินทางก่อนรุ่งสางพร้อมกับข้าวสองกระสอบบนเกวียนและถนนไปหมู่บ้านขาวโพลนด้วยน้ำค้างแข็ง",
    "cp1250": "Mlynář vyrazil ještě před úsvitem se dvěma pytli obilí na voze a cesta do vesnice byla bílá jíním.",
    "cp1254": "Değirmenci şafak sökmeden önce arabasında iki çuval "
    " tahılla yola çıktı ve köye giden yol kırağıyla bembeyazdı.",
}


@pytest.mark.parametrize("codec", SENTENCES)
def test_detection_without_a_declaration(codec):
    page = f"<html><head><title>x</title></head><body><div><p>{SENTENCES[codec]}</p></div></body></html>"
    assert decode(page.encode(codec), "text/html") == page
    behind = "<script>var a = 1;</script>\n" * 5_000 + page
    assert decode(behind.encode(codec), "") == behind


def test_detection_samples_large_pages(monkeypatch):
    looked_at, real = [], chardet.detect
    monkeypatch.setattr(chardet, "detect", lambda data: looked_at.append(len(data)) or real(data))
    decode(random.Random(0).randbytes(5_000_000), "")
    assert looked_at and max(looked_at) < 100_000


@pytest.mark.parametrize("label", ["utf-7", "base64", "rot13", "unicode_escape", "idna", "none", "", "a\0b"])
def test_unknown_encodings(label):
    assert codec_of(label) is None


def test_every_label_of_the_encoding_standard_is_known():
    assert len(CODEC_OF_LABEL) == 228
    assert {label: codec_of(label) for label in CODEC_OF_LABEL} == CODEC_OF_LABEL
    assert (codec_of(" \t GB2312\n"), codec_of("Latin1")) == ("gb18030", "cp1252")


@pytest.mark.parametrize(
    ("head", "codec"),
    [
        # The first valid label counts.
        ("<meta charset=nonsense><meta charset=koi8-r>", "koi8-r"),
        ('<meta charset=""><meta charset=koi8-r>', "koi8-r"),
        ("<meta charset=koi8-r><meta charset=utf-8>", "koi8-r"),
        # `content` counts only with http-equiv="content-type".
        ('<meta http-equiv=Content-Type content="text/html; charset=koi8-r">', "koi8-r"),
        ('<meta content="text/html; charset=koi8-r" http-equiv="CONTENT-TYPE">', "koi8-r"),
        ("<meta http-equiv='content-type' content='charset = \"koi8-r\"; x'>", "koi8-r"),
        ('<meta http-equiv="content-type" content="charsets; charset=koi8-r ">', "koi8-r"),
        ('<meta content="text/html; charset=koi8-r">', None),
        ('<meta name="description" content="charset=koi8-r"><meta charset=utf-8>', "utf-8"),
        ('<meta http-equiv="refresh" content="text/html; charset=koi8-r">', None),
        ('<meta http-equiv="content-type" content="charset=\'koi8-r">', None),
        # `charset` counts more than `content`, and of equal attributes the first.
        ('<meta http-equiv="content-type" content="charset=utf-8" charset=koi8-r>', "koi8-r"),
        ('<meta http-equiv="content-type" content="charset=koi8-r" charset=nonsense>', None),
        ("<meta charset=koi8-r charset=utf-8>", "koi8-r"),
        # Encodings that a readable page cannot have, and labels of other encodings.
        ("<meta charset=utf-16>", "utf-8"),
        ("<meta charset=unicodefffe>", "utf-8"),
        ("<meta charset=x-user-defined>", "cp1252"),
        ("<meta charset=iso-8859-1>", "cp1252"),
        # Markup other than <meta>.
        ('<!-- <meta charset="utf-8"> --><meta charset="koi8-r">', "koi8-r"),
        ('<!--><meta charset="koi8-r"> -->', "koi8-r"),
        ('<!-- > <meta charset="koi8-r">', None),
        ('<p title="<meta charset=utf-8>"><meta charset=koi8-r>', "koi8-r"),
        ("</p a='<meta charset=utf-8>'><meta charset=koi8-r>", "koi8-r"),
        ("<!x '<meta charset=utf-8>'<meta charset=koi8-r>", "koi8-r"),
        ("<metadata charset=utf-8><meta/charset=koi8-r/>", None),  # the label is "koi8-r/"
        ("<metadata charset=utf-8><meta/charset='koi8-r'/>", "koi8-r"),
        ("<mETa\n\f CHARSET = KOI8-R >", "koi8-r"),
        ("<meta =charset=utf-8 charset=koi8-r>", "koi8-r"),
        ('<meta charset="koi8-r', None),
        ("<meta charset=koi8-r", None),
        # An XML declaration, if no <meta> declares an encoding.
        ('<?xml version="1.0" encoding="koi8-r"?><meta charset=nonsense>', "koi8-r"),
        ("<?xml version='1.0' encoding = 'utf-16'?>", "utf-8"),
        ('<?xml encoding="utf-8"?><meta charset=koi8-r>', "koi8-r"),
        (' <?xml encoding="koi8-r"?>', None),
    ],
)
def test_declarations_are_read_as_browsers_read_them(head, codec):
    assert meta_codec(head.encode()) == codec


def test_a_declaration_truncated_by_the_prescan_is_ignored():
    meta = b"<meta charset=koi8-r>"
    blanks = b" " * (PRESCAN_BYTES - len(meta))
    assert meta_codec(blanks + meta) == "koi8-r"
    assert meta_codec(blanks + b" " + meta) is None


@pytest.mark.parametrize("label", ["iso-2022-kr", "hz-gb-2312"])
def test_encodings_removed_from_the_web_are_not_decoded(label):
    with pytest.raises(UnicodeError):
        decode(b"<p>~{VPND~}", f"text/html; charset={label}")
    with pytest.raises(UnicodeError):
        decode(f"<meta charset={label}><p>~{{VPND~}}".encode(), "")


def test_random_bytes_and_headers_raise_no_error():
    for content_type in ("", "text/html; charset=", "charset=utf-8", "text/html; charset*=x''y", "\r\n\0;;;"):
        assert isinstance(decode(bytes(range(256)) * 5, content_type), str)
