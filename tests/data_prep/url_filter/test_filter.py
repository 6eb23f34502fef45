import hypothesis
import pytest
from hypothesis import strategies

from data_prep.config import UrlFilterConfig
from data_prep.url_filter.filter import reject_reason
from lm.errors import InputError

CONFIG = UrlFilterConfig(
    banned_domains=("Bad.example", "blogs.good.example", "Bücher.example", "xn--mll-hoa.example", "*.worse.example"),
    banned_words=("Casino", "xxx", "покер", "anal"),
    soft_banned_words=("free", "Bets", "slots"),
    soft_word_threshold=2,
    banned_substrings=("Lucky-Strike", "2 for 1"),
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
        "http://a.worse.example/",
        "bad.example/page",  # without a scheme
        "http://bad.example/casino",  # the domain is checked first
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
        "http://a.example/c%41SINO",
        "http://a.example/视频xxx",  # scripts without spaces
        "http://a.example/%E8%A7%86%E9%A2%91xxx",
        "http://a.example/ｘｘｘ",  # full width
        "http://a.example/Покер",
        "http://a.example/%D0%BF%D0%BE%D0%BA%D0%B5%D1%80",
        "http://a.example/casino-lucky-strike-free-bets",  # words are checked first
    ],
)
def test_banned_word(url):
    assert reject_reason(url, CONFIG) == "banned_word"


@pytest.mark.parametrize(
    "url", ["http://a.example/free-bets", "http://free.example/?x=BETS_slots", "http://slots.example/%66ree"]
)
def test_soft_banned_words(url):
    assert reject_reason(url, CONFIG) == "soft_banned_words"


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/luckystrike",
        "http://unlucky.strikes.example/",  # across word boundaries
        "http://a.example/LUCKY%20STRIKE",
        "http://a.example/12for1",
        "http://a.example/free-lucky-strike",
    ],
)
def test_banned_substring(url):
    assert reject_reason(url, CONFIG) == "banned_substring"


@pytest.mark.parametrize(
    "url",
    [
        "http://notbad.example/",  # another domain with the same ending
        "http://good.example/bad.example",
        "http://good.example/?from=bad.example",
        "http://occasino.example/casinos",  # only whole tokens
        "http://[::1/",  # not an address
        pytest.param(f"http://{'a' * 80}..example/", id="no valid host name"),
        "http://good.example/\\bad.example",
        "http://a.example/analýza",
        "http://a.example/anal%C3%BDza",
        "http://a.example/analy%CC%81za",  # the mark separate from its letter
        "http://a.example/free-free",  # two different soft words are required
        "http://a.example/freebets",
        "http://a.example/lucky-%C3%A9-strike",
        "",
    ],
)
def test_passes(url):
    assert reject_reason(url, CONFIG) is None


def test_an_empty_list_passes_everything():
    assert reject_reason("http://casino.bad.example", UrlFilterConfig((), ())) is None


def test_many_substrings_and_too_many():
    substrings = tuple(f"number{number}x" for number in range(10_000))
    config = UrlFilterConfig((), (), banned_substrings=substrings)
    assert reject_reason("http://a.example/number-9999-x", config) == "banned_substring"
    assert reject_reason("http://a.example/number-10000-x", config) is None
    with pytest.raises(InputError, match="10,001 banned substrings; the limit is 10,000"):
        reject_reason("http://a.example/", UrlFilterConfig((), (), banned_substrings=(*substrings, "another")))


@hypothesis.given(strategies.text(alphabet="ab./\\:@%?#[]-_\x00\u00fc\u3002\ud800\u0130 0y", max_size=40))
def test_no_address_raises_an_error(text):
    assert reject_reason(text, CONFIG) is None
    assert reject_reason("http://" + text, CONFIG) is None
    assert reject_reason("http://bad.example/" + text, CONFIG) == "banned_domain"
