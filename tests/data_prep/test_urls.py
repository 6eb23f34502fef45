import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.urls import canonical_host, page_key, parents, same_page_key, split_address


@pytest.mark.parametrize(
    ("url", "host", "rest"),
    [
        ("http://A.Example/Page?q#f", "a.example", "/Page?q#f"),
        ("https://user:secret@a.example:8443?x=1", "a.example", "?x=1"),
        ("a.example/page", "a.example", "/page"),
        ("a.example:80/page", "a.example", "/page"),
        ("//a.example./", "a.example", "/"),
        ("http:a.example/", "a.example", "/"),
        (" http:\\\\a.example\\@b.example/", "a.example", "\\@b.example/"),
        ("ftp://a.example#x", "a.example", "#x"),
        ("http://a@b@c.example/", "c.example", "/"),
        ("http://1.2.3.4:80/", "1.2.3.4", "/"),
        ("http://a%2Eexample%2F/", "a.example/", "/"),  # no host, and on no list
        ("http://[::1]:80/x", "", "/x"),
        ("http://[::1/", "", "/"),
        (f"http://{'a.' * 127}example/", "", "/"),
        ("http:///", "", ""),
        ("", "", ""),
    ],
)
def test_split_address(url, host, rest):
    assert split_address(url) == (host, rest)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("Bücher.Example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),  # not strasse: IDNA 2008, as in browsers
        ("a\u3002example", "a.example"),  # the ideographic full stop
        ("ｂad.example", "bad.example"),  # full width
        ("i❤.example", "xn--i-7iq.example"),  # only IDNA 2003 allows symbols
        ("under_score.example", "under_score.example"),
        ("ü_x..example", "ü_x..example"),  # not a valid name
        (".a.example.", "a.example"),
    ],
)
def test_canonical_host(name, canonical):
    assert canonical_host(name) == canonical


def test_parents():
    assert parents("a.b.example") == ["a.b.example", "b.example", "example"]


@pytest.mark.parametrize(
    "url", ["http://a.example/x/y", "https://www.A.example:80/X/Y/", "a.example/x/y#top", "http://a.example\\x/%79"]
)
def test_one_page_has_one_key(url):
    assert page_key(*split_address(url)) == "a.example/x/y"


@pytest.mark.parametrize("url", ["http://a.example/x", "http://a.example/x/y?z", "http://b.a.example/x/y"])
def test_another_page_has_another_key(url):
    assert page_key(*split_address(url)) != "a.example/x/y"


def test_the_key_of_a_host_ends_with_a_slash():
    assert page_key("a.example", "") == page_key("a.example", "/") == "a.example/"


IGNORED = ("utm_*", "fbclid")


@pytest.mark.parametrize(
    "same",
    [
        (
            "http://a.example/x",
            "https://www.A.example./x/",
            "//a.example/x",
            "https://me@a.example:443/x?",
            "a.example/x",
        ),
        ("http://a.example", "http://a.example/", "http://a.example/#part", "http://a.example?utm_source=mail"),
        ("http://a.example/?b=2&a=1", "http://a.example/?a=1&b=2&UTM_Medium=x&fbclid=1", "http://a.example?a=1&&b=2"),
        ("http://a.example/%7ex%c3%a9", "http://a.example/~x%C3%A9"),
        ("http://a.example\\x\\y", "http://a.example/x/y"),
        ("http://xn--bcher-kva.example/", "http://bücher.example/"),
    ],
    ids=["scheme", "root", "query", "escapes", "backslashes", "names"],
)
def test_spellings_of_one_page(same):
    assert len({same_page_key(url, IGNORED) for url in same}) == 1


def test_pages_that_differ():
    different = (
        "http://a.example/x", "http://a.example/X", "http://a.example:8080/x", "http://b.a.example/x",
        "http://a.example/x?a=1", "http://a.example/x?a=2", "http://a.example/x?a=1&a=2", "http://a.example/x?a=2&a=1",
        "http://a.example/x%2Fy", "http://a.example/x/y", "http://a.example/#!x", "http://a.example/#!y",
        "http://a.example/x?utm", "http://a.example/x?fbclids=1",
    )  # fmt: skip
    assert len({same_page_key(url, IGNORED) for url in different}) == len(different)
    assert same_page_key("http://a.example/?utm_source=x") == "a.example?utm_source=x"  # nothing is ignored by default
    assert [same_page_key(url, IGNORED) for url in ("", "#x", "http://", "http://[::1]/")] == [None] * 4


@given(st.text(max_size=60))
def test_the_key_of_a_key_is_itself(url):
    key = same_page_key(f"http://a.example/{url}", IGNORED)
    assert key is not None and same_page_key(f"http://{key}", IGNORED) == key
