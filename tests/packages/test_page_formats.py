"""Each format becomes pages whose main text is extracted word for word."""

import bz2
import dataclasses
import html.parser
import json
import re

import pytest
import trafilatura

from configs.packages import page_formats
from configs.packages.archives import Member
from configs.packages.page_formats import pages_of_member, unwrap, wikitext_to_html
from lm.errors import InputError
from tests.packages.test_write_pages import pin

DATE = "2020-02-02T00:00:00Z"
LIMIT = 1_000_000

PLAY = """THE TRAGEDY

Ber.
Who's there?

Fran.
Nay, answer me: stand & unfold
yourself to <me>.

Ham.
I have of late, but wherefore I know not, lost all my mirth, forgone
all custom of exercises; and indeed it goes so heavily with my dispo-
sition. This is the end.
"""


def pages(data: bytes, name="p/some_play.txt", **changes):
    return list(pages_of_member(Member(name, DATE, data), pin(**changes)))


def extracted(page) -> str:
    return trafilatura.extract(page.body, favor_precision=True, include_comments=False) or ""


class Balance(html.parser.HTMLParser):
    """Raise if an element is closed that is not the innermost open one."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def assert_small_html_page(page):
    assert page.content_type == "text/html; charset=utf-8"
    assert page.body.startswith(b"<!DOCTYPE html>")
    for element in (b"<title>", b"<h1>", b"<article>"):
        assert page.body.count(element) == 1
    balance = Balance()
    balance.feed(page.body.decode())
    balance.close()
    assert balance.open == []


def test_html_is_unchanged():
    (page,) = pages(b"<html>\xff as it came", name="doc/a b.html", format="html")
    assert page.body == b"<html>\xff as it came"
    assert page.url == "https://sample.example/doc/a%20b.html"
    assert page.date == DATE
    assert page.file_path == f"{pin().file.name}/doc/a b.html"


@pytest.mark.parametrize("spoil", [str, lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t])
def test_plain_text_keeps_lines_of_verse_and_joins_wrapped_prose(spoil):
    (page,) = pages(spoil(PLAY).encode(), format="plain_text")
    assert_small_html_page(page)
    assert b"<title>some play</title>" in page.body
    assert b"<p>Fran.<br>\nNay, answer me: stand &amp; unfold<br>\nyourself to &lt;me&gt;.</p>" in page.body
    assert b"Ham.<br>\nI have of late, but wherefore I know not, lost all my mirth, forgone all custom" in page.body


def test_no_dialogue_is_lost():
    speeches = [f"Ham.\nSpeech number {n} goes\nto the end of {n * n}." for n in range(300)]
    (page,) = pages("\n\n".join(speeches).encode(), format="plain_text")
    assert re.findall(r"\w+", extracted(page)) == re.findall(r"\w+", "\n\n".join(speeches))


def test_unwrapping_prose_of_any_width_gives_one_line():
    words = re.findall(r"\w+", "It is a truth that every line of prose was broken where the next word did not fit") * 5
    for width in range(66, 80):
        lines = [""]
        for word in words:
            if len(lines[-1]) + len(word) > width:
                lines.append("")
            lines[-1] += word + " "
        assert unwrap("\n".join(lines)) == [" ".join(words)]


WIKITEXT = """{{Infobox|name=dropped}}
[[File:Dropped.jpg|thumb|A dropped [[caption]].]]
'''Anarchism''' is a [[political philosophy|philosophy]] of [[society]]&nbsp;&ndash; an idea.<ref>dropped</ref> It
<!-- dropped --> comes from {{lang|el|ἀναρχία}} and covers {{convert|10|km|mi}}.<br/>More<ref name="x"/> text.

== History ==
=== Early ===
First paragraph with [http://dropped.example a link] and <math>dropped</math>.
* one ''item''
* two
{| class="wikitable"
! dropped
|-
| dropped
|}
{| class="dropped, though never closed"
| dropped
== References ==
{{reflist|dropped}}
[[Category:Dropped]]
"""


def test_wikitext_becomes_paragraphs_headings_and_lists():
    elements = wikitext_to_html(WIKITEXT)
    assert elements == [
        "<p>Anarchism is a philosophy of society – an idea. It</p>",
        "<p>comes from ἀναρχία and covers 10 km. More text.</p>",
        "<h2>History</h2>",
        "<h3>Early</h3>",
        "<p>First paragraph with a link and .</p>",
        "<ul>",
        "<li>one item</li>",
        "<li>two</li>",
        "</ul>",
    ]


def mediawiki(*articles: tuple[str, str, str], declaration: str = "") -> str:
    pages = "".join(
        f"<page><title>{title}</title><ns>{ns}</ns>{'<redirect title="x"/>' if text.startswith('#') else ''}"
        f"<revision><timestamp>2016-04-22T10:19:33Z</timestamp><text>{text}</text></revision></page>"
        for title, ns, text in articles
    )
    return f'{declaration}<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{pages}</mediawiki>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_mediawiki_gives_only_articles(encoding):
    text = mediawiki(
        ("Ünique title", "0", "An article.\n\nOf two paragraphs."),
        ("Old title", "0", "#REDIRECT [[Ünique title]]"),
        ("Talk:Title", "1", "Chatter."),
        ("Another", "0", "A &lt;b&gt;bold&lt;/b&gt; one."),
    )
    data = bz2.compress(text.encode(encoding))
    first, second = pages(data, format="mediawiki_xml_bz2", address="https://wiki.example/wiki/")
    assert first.url == "https://wiki.example/wiki/%C3%9Cnique_title"
    assert first.date == "2016-04-22T10:19:33Z"
    assert b"<p>An article.</p>\n<p>Of two paragraphs.</p>" in first.body
    assert b"<p>A bold one.</p>" in second.body
    for page in (first, second):
        assert_small_html_page(page)


def test_nested_compression_is_limited_too(monkeypatch):
    monkeypatch.setattr(page_formats, "LIMIT", LIMIT)
    bomb = bz2.compress(mediawiki(("Bomb", "0", "a" * (LIMIT + 1))).encode())
    with pytest.raises(InputError, match="more than"):
        pages(bomb, format="mediawiki_xml_bz2")


def test_summaries_are_collected_by_topic_in_the_order_of_titles():
    entries = {
        f"Title {n:02d}": {"title": f"Title {n:02d}", "topic": topic, "extract": f"Summary {n} & more.\nOn {topic}."}
        for n, topic in enumerate(["Arts", "Human life"] * 5)
    }
    forward = pages(json.dumps(entries).encode(), format="title_summaries_json", entries_per_page=3)
    backward = dict(reversed(entries.items()))
    assert forward == pages(json.dumps(backward).encode(), format="title_summaries_json", entries_per_page=3)
    assert [p.url.removeprefix(pin().address) for p in forward] == [
        "Arts/0001",
        "Arts/0002",
        "Human_life/0001",
        "Human_life/0002",
    ]
    assert re.findall(r"<h2>(.*)</h2>", forward[0].body.decode()) == ["Title 00", "Title 02", "Title 04"]
    assert b"<p>Summary 0 &amp; more.</p>\n<p>On Arts.</p>" in forward[0].body
    for page in forward:
        assert_small_html_page(page)


WRONG = {"plain_text": b"\xff\xfe\x00\xd8", "mediawiki_xml_bz2": b"no bzip2", "title_summaries_json": b'["a list"]'}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        *WRONG.items(),
        pytest.param("mediawiki_xml_bz2", bz2.compress(b"<mediawiki><page>"), id="XML left open"),
        ("title_summaries_json", b"{"),
    ],
)
def test_another_format_is_rejected_by_name(kind, data):
    with pytest.raises(InputError, match=f"p/thing in {pin().file.name} is not in the format {kind}"):
        list(pages_of_member(Member("p/thing", DATE, data), dataclasses.replace(pin(), format=kind)))
