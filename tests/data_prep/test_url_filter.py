import pytest

from data_prep.config import UrlFilterConfig
from data_prep.url_filter import host_of, reject_reason

CONFIG = UrlFilterConfig(banned_domains=("Bad.example", "blogs.good.example"), banned_words=("Casino", "xxx"))


@pytest.mark.parametrize(
    "url",
    [
        "http://bad.example",
        "https://BAD.example/page",
        "https://a.b.bad.example:8443/x?y#z",
        "https://user:password@www.bad.example/",
        "http://bad.example./",
        "http://blogs.good.example/",
        "http://bad.example/casino",  # the domain is looked at first
    ],
)
def test_banned_domain(url):
    assert reject_reason(url, CONFIG) == "banned_domain"


@pytest.mark.parametrize(
    "url", ["http://a.example/casino", "http://casino.example", "http://a.example/x?q=CASINO-royal_xxx"]
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
        "",
    ],
)
def test_passes(url):
    assert reject_reason(url, CONFIG) is None


def test_nothing_banned_passes_all():
    assert reject_reason("http://casino.bad.example", UrlFilterConfig((), ())) is None


def test_host_of_broken_address():
    assert host_of("http://[::1/") == ""
