import pytest

from data_prep.config import UrlFilterConfig
from data_prep.url_filter import host_of, reject_reason

CONFIG = UrlFilterConfig(
    banned_domains=("Bad.example", "blogs.good.example", "Bücher.example", "xn--mll-hoa.example"),
    banned_words=("Casino", "xxx"),
)


@pytest.mark.parametrize(
    "url",
    [
        "http://bad.example",
        "https://BAD.example/page",
        "https://a.b.bad.example:8443/x?y#z",
        "https://user:password@www.bad.example/",
        "http://bad.example./",
        "http://blogs.good.example/",
        "http://bad%2eexample/",
        "http://b%61d%2Eexample/",
        "http:\\\\bad.example\\page",
        "http://bad.example\\@good.example/",
        "http://bad\u3002example/",  # the ideographic full stop
        "http://bücher.example/",
        "http://www.xn--bcher-kva.example/",
        "http://B%C3%BCcher.example/",
        "http://müll.example/",
        "http://xn--mll-hoa.example/",
        "http://bad.example/casino",  # the domain is looked at first
    ],
)
def test_banned_domain(url):
    assert reject_reason(url, CONFIG) == "banned_domain"


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/casino",
        "http://casino.example",
        "http://a.example/x?q=CASINO-royal_xxx",
        "http://a.example/%20xxx",
        "http://a.example/c%61sino",
    ],
)
def test_banned_word(url):
    assert reject_reason(url, CONFIG) == "banned_word"


@pytest.mark.parametrize(
    "url",
    [
        "http://notbad.example/",  # another domain that ends alike
        "http://good.example/bad.example",
        "http://good.example/?from=bad.example",
        "http://occasino.example/casinos",  # whole tokens only
        "http://[::1/",  # not an address at all
        f"http://{'a' * 80}..example/",  # no valid host name
        "http://good.example/\\bad.example",
        "",
    ],
)
def test_passes(url):
    assert reject_reason(url, CONFIG) is None


def test_nothing_banned_passes_all():
    assert reject_reason("http://casino.bad.example", UrlFilterConfig((), ())) is None


def test_host_of_broken_address():
    assert host_of("http://[::1/") == ""
