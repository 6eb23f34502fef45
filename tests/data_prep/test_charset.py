import pytest

from data_prep.charset import codec_of, decode

TEXT = "<p>Grüße, naïve café – “quoted” €"


def test_byte_order_mark_beats_the_header():
    assert decode(b"\xef\xbb\xbf" + TEXT.encode(), "text/html; charset=windows-1251") == TEXT
    assert decode(b"\xff\xfe" + TEXT.encode("utf-16-le"), "text/html; charset=utf-8") == TEXT
    assert decode(b"\xfe\xff" + TEXT.encode("utf-16-be"), "") == TEXT


def test_header_beats_meta():
    page = '<meta charset="utf-8"><p>Привет'
    assert decode(page.encode("cp1251"), 'text/html; Charset="Windows-1251"') == page


@pytest.mark.parametrize(
    "head",
    [
        "<meta charset=koi8-r>",
        '<META http-equiv="Content-Type" content="text/html; charset=koi8-r">',
        '<?xml version="1.0" encoding="koi8-r"?>',
        '<!-- <meta charset="utf-8"> --><meta charset="koi8-r">',
    ],
)
def test_meta_where_the_header_is_silent(head):
    page = head + "<p>Привет, мир"
    assert decode(page.encode("koi8-r"), "text/html") == page


def test_meta_counts_in_the_first_1024_bytes_only():
    late = "<p>" + " " * 1024 + "<meta charset=koi8-r>Grüße"
    assert decode(late.encode("cp1252"), "") == late


def test_utf16_in_a_meta_that_can_be_read_means_utf8():
    page = "<meta charset=utf-16>Grüße"
    assert decode(page.encode(), "") == page


def test_undeclared_is_utf8_then_windows_1252():
    assert decode(TEXT.encode(), "") == TEXT
    assert decode(TEXT.encode("cp1252"), "") == TEXT


def test_latin1_on_the_web_means_windows_1252():
    assert decode(TEXT.encode("cp1252"), "text/html; charset=ISO-8859-1") == TEXT


def test_a_declaration_that_the_bytes_contradict_is_not_believed():
    assert decode(TEXT.encode("cp1252"), "text/html; charset=utf-8") == TEXT


@pytest.mark.parametrize("content_type", ["", "text/html; charset=utf-8"])
def test_a_letter_cut_off_at_the_end_spoils_no_other(content_type):
    cut = (TEXT + "é").encode()[:-1]
    assert decode(cut, content_type) == TEXT + "\ufffd"


def test_replacement_characters_of_the_page_itself_are_utf8():
    assert decode("caf\ufffd".encode(), "") == "caf\ufffd"


@pytest.mark.parametrize("label", ["utf-7", "base64", "rot13", "unicode_escape", "idna", "none", "", "a\0b"])
def test_what_is_no_encoding_of_the_web(label):
    assert codec_of(label) is None


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("x-sjis", "cp932"),
        (" GB2312 ", "gb18030"),
        ("ks_c_5601-1987", "cp949"),
        ("latin1", "cp1252"),
        ("UTF8", "utf-8"),
    ],
)
def test_labels(label, codec):
    assert codec_of(label) == codec


def test_never_raises():
    for content_type in ("", "text/html; charset=", "charset=utf-8", "text/html; charset*=x''y", "\r\n\0;;;"):
        assert isinstance(decode(bytes(range(256)) * 5, content_type), str)
