"""Our extraction: splitting a page into blocks, and classifying blocks as main text."""

import dataclasses
import json
import random
import runpy
from array import array
from pathlib import Path

import numpy as np
import pytest

from configs.recipes.gristmill import EXTRACT
from data_prep.extract import extract_text
from data_prep.extract.blocks import KIND, Blocks, PageLimitError, read_blocks
from data_prep.extract.features import Page, measure
from data_prep.extract.hints import BIT, TAG_BITS, hints_of_attributes, hints_of_name
from data_prep.extract.main_text import (
    ARTICLE,
    LOG_ODDS_QUARTERS,
    MAYBE_ARTICLE,
    bullet,
    expected_bar,
    main_blocks,
    scores,
    whole_page,
)
from data_prep.extract.trees import SCALE, Model, Trees, load_model
from data_prep.warc import read_pages
from tests.bench.extraction import config_for
from tests.data_prep.pages import GERMAN, PROSE, html, page

SHARED = Path(__file__).parents[3] / "../shared"
CONFIG = config_for("gristmill", EXTRACT.min_probability)
JAPANESE = (
    "粉屋は夜明け前に二袋の穀物を荷車に積んで出発し、村への道は霜で白くなっていた。"
    "彼はパン屋に、窯が熱くなる頃には粉が届いていると約束していた。"
)


def page_of(body: str) -> Page:
    return Page(read_blocks(body, CONFIG))


def texts(body: str) -> list[str]:
    return read_blocks(body, CONFIG).texts


def main_text(body: bytes) -> str:
    text, reason = extract_text(page(body), CONFIG)
    assert reason is None
    return text


@pytest.mark.parametrize(
    ("body", "blocks"),
    [
        ("<p>un<b>believ</b>able <a href=x>w</a>ord</p>", ["unbelievable word"]),
        ("<p>one<p>two<div>three<span> four</span></div>five", ["one", "two", "three four", "five"]),
        ("<p>a<br>b<br/>c", ["a\nb\nc"]),
        ("<p>a<br> <br>\n b", ["a", "b"]),
        ("<p>  white \n\t space&nbsp;too </p>", ["white space too"]),
        ("<p>so&shy;ft and ze\u200bro</p>", ["soft and zero"]),
        ("<ul><li>one<li>two<ul><li>deep</ul></ul>", ["one", "two", "deep"]),
        ("<table><tr><th>a<th>b<tr><td>1<td></td><td>2</table>", ["a | b", "1 | 2"]),
        ("<table><tr><td><p>layout</p></td><td><p>table</p></td></tr></table>", ["layout", "table"]),
        ("<pre>def f(x):\n    return x\n\n</pre>", ["def f(x):\n    return x"]),
        ("<p>a<script>var b = '<p>c'</script>d<style>e{}</style><!-- f --></p>", ["ad"]),
        ("<p>a</p><button>Share</button><select><option>b</select><h3><button>Why?</button></h3>", ["a", "Why?"]),
        ("<svg><title>t</title><text>x</text></svg><p>1 &lt; 2 &amp; 3", ["1 < 2 & 3"]),
        ("x<h1>y</h1>z", ["x", "y", "z"]),
        ("<p>a</p><button><div>b</button><p>c</p><button>d</button><p>e</p>", ["a", "e"]),
        ("<noscript><p>abc</p></noscript><p>def ghi</p>", ["def ghi"]),
        ("<p>def</p><noscript><p>abc <b>ghi</b></p>jkl</noscript>", ["def", "abc ghi", "jkl"]),
    ],
)
def test_blocks_are_those_of_a_browser(body, blocks):
    assert texts(body) == blocks


def test_blocks_and_elements_refer_to_each_other():
    body = (
        '<title> The\n title </title><div class="post-body" id=x><p>one <a href=y>two</a></p>'
        "<nav><p><a href=z>three</a></nav></div>"
    )
    blocks = read_blocks(body, CONFIG)
    assert (blocks.title, blocks.texts, blocks.link.tolist()) == ("The title", ["one two", "three"], [3, 5])
    div = blocks.kind.index(KIND["div"])
    assert (blocks.first[div], blocks.last[div], blocks.last[0]) == (0, 2, 2)
    assert [bool(blocks.mask[owner] & BIT["body_name"]) for owner in blocks.owner] == [True, True]
    assert [bool(blocks.mask[owner] & BIT["<nav>"]) for owner in blocks.owner] == [False, True]
    for element, parent in enumerate(blocks.parent[1:], 1):
        assert blocks.first[parent] <= blocks.first[element] <= blocks.last[element] <= blocks.last[parent]


def test_hints_match_whole_words_where_required():
    assert hints_of_name("Ads top") & BIT["advert"] and not hints_of_name("loads shadow") & BIT["advert"]
    assert hints_of_name("commentList") & BIT["comment"]
    assert hints_of_attributes({"style": "color:red; display : none"}) == BIT["hidden"]
    assert hints_of_attributes({"role": "navigation"}) == TAG_BITS["nav"]
    assert hints_of_attributes({"itemtype": "http://schema.org/Comment"}) == BIT["comment"]
    body = "<div class='comment 1'>a</div><div class='Comment 22'>b</div><div class=comments>c</div>"
    blocks = read_blocks(f"{body}<nav id=sidebar>d", CONFIG)
    first, second, third, last = blocks.owner
    assert blocks.name[first] != blocks.name[second] and blocks.own[first] == blocks.own[second] == BIT["comment"]
    assert blocks.name[third] not in (blocks.name[first], blocks.name[last]) and blocks.own[third] == BIT["comment"]
    assert blocks.own[last] == BIT["<nav>"] | BIT["side"]


def test_exceeded_limits_are_named_while_parsing():
    with pytest.raises(PageLimitError, match="html_too_many_elements"):
        read_blocks("<br>" * 500, dataclasses.replace(CONFIG, max_elements=400))


def furnished(main: str) -> bytes:
    """A blog page with boilerplate around the text."""
    menu = "".join(f'<li><a href="/{n}">Topic number {n}</a></li>' for n in range(12))
    teasers = "".join(
        f'<li class="related-item"><a href="/{n}">Ten things you must know about millers, part {n}</a></li>'
        for n in range(6)
    )
    return f"""<!DOCTYPE html><html><head><title>The miller - A blog</title></head><body>
        <header class="site-header"><a href="/">A blog</a><nav><ul class="menu">{menu}</ul></nav></header>
        <div class="breadcrumb"><a href="/">Home</a> &gt; <a href="/t">Tales</a></div>
        <main><article class="post"><h1 class="entry-title">The miller</h1>
        <div class="entry-content">{main}</div></article></main>
        <section id="comments" class="comments-area"><h3>2 comments</h3><ol class="comment-list">
        <li class="comment"><p>I liked this tale very much, thank you for sharing it with us!</p><a href="#">Reply</a>
        <li class="comment"><p>My grandfather was a miller too, and he told us the same thing.</p></ol></section>
        <aside class="sidebar widget"><h3>Related</h3><ul>{teasers}</ul></aside>
        <footer class="site-footer"><p>Copyright 2026 A blog. All rights reserved.</p>
        <a href="/privacy">Privacy policy</a></footer></body></html>""".encode()


def test_boilerplate_is_removed_and_the_text_is_complete():
    paragraphs = [PROSE, f"{PROSE} Again.", f"{PROSE} And again."]
    main = f"<p>{paragraphs[0]}</p><h2>The second day</h2><p>{paragraphs[1]}</p>" + (
        f"<ul><li>{GERMAN}</li><li><p>{GERMAN} Zwei.</p></li></ul><p>{paragraphs[2]}</p>"
    )
    wanted = [paragraphs[0], "The second day", paragraphs[1], f"- {GERMAN}", f"- {GERMAN} Zwei.", paragraphs[2]]
    assert [line for line in main_text(furnished(main)).split("\n") if line != "The miller"] == wanted


@pytest.mark.parametrize("prose", [PROSE, GERMAN, JAPANESE])
def test_a_plain_page_of_prose_gives_its_prose(prose):
    for body in (prose, f"<p>{prose}", f"<html><body>{prose}<br><br>{prose} 2</body></html>"):
        assert main_text(body.encode()).split("\n")[0] == prose


def test_long_runs_of_blanks_are_kept_only_in_code_and_take_linear_time():
    body = html(PROSE, "a" + " " * 990_000 + "b<br>" + PROSE).replace(b"</article>", b"<pre>a  b</pre></article>")
    assert main_text(body).startswith(f"{PROSE}\na b\n{PROSE}")


def test_a_higher_probability_gives_less_text():
    lengths = [
        len(extract_text(page(furnished(f"<p>{PROSE}</p><p>Short.</p>")), config_for("gristmill", p))[0])
        for p in (0.05, 0.3, 0.65, 0.9)
    ]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1]


def blocks_of(lengths: list[int], kinds: list[str]) -> Blocks:
    size = len(kinds)
    blocks, none = Blocks(), [0] * (size + 1)
    blocks.texts += ["x" * length for length in lengths]
    columns = {"owner": range(1, size + 1), "link": [5] * size, "images": [], "parent": [-1, *none[1:]]}
    columns |= {"kind": [0, *(KIND[kind] for kind in kinds)], "name": [0, *[1] * size]}
    for name, values in (columns | dict.fromkeys(("own", "mask", "first", "last"), none)).items():
        setattr(blocks, name, array("q", values))
    return blocks


def test_gaps_are_filled_and_a_page_with_one_paragraph_is_kept():
    kinds = ["p", "p", "h2", "p", "p", "h2", "p"]
    blocks = Page(blocks_of([100] * 7, kinds))
    score = np.array([0.1, 2, -0.5, 2, 0.1, -0.5, -0.1]) * SCALE
    assert main_blocks(blocks, score, 0.65) == [1, 2, 3]  # nothing is filled after the last certain block
    assert main_blocks(blocks, np.array([-2, -2, -2, -1, -9, -9, -9]) * SCALE, 0.65) == [3]
    for is_article in (True, False):
        assert main_blocks(blocks, np.full(7, -4 * SCALE), 0.65, is_article) == []
    far = Page(blocks_of([100] * 12, ["p"] * 12))
    assert main_blocks(far, np.array([2, *[0.1] * 10, 2]) * SCALE, 0.65) == [0, 11]


def test_the_threshold_of_other_pages_maximizes_the_expected_f1():
    """Compared with every choice of the k likeliest blocks, by definition."""
    random_ = np.random.default_rng(0)
    for _ in range(50):
        score, length = random_.integers(-6000, 6000, 12), random_.integers(1, 300, 12)
        score -= score % 4  # so that three quarters are integers too
        p = 1 / (1 + np.exp(-score * LOG_ODDS_QUARTERS / 4 / SCALE))
        order = np.argsort(-p, kind="stable")
        f1 = [2 * (p * length)[order[:k]].sum() / (length[order[:k]].sum() + (p * length).sum()) for k in range(1, 13)]
        kept = set(np.flatnonzero(score > expected_bar(score, length, 0.5)))
        assert kept == set(order[: 1 + int(np.argmax(f1))])
        assert expected_bar(score, length, 0.6) > expected_bar(score, length, 0.5)
    certain = np.array([9, 9, -9]) * SCALE
    assert expected_bar(certain, np.full(3, 100), 0.5) == pytest.approx(0, abs=10)


def test_the_main_text_of_a_page_that_is_not_an_article():
    """All entries of a list except one have low scores, and its boilerplate lower ones."""
    page = Page(blocks_of([100] * 10, ["p"] * 10))
    score = np.array([2000, *[-600] * 6, *[-2500] * 3])
    assert main_blocks(page, score, 0.65, is_article=False) == list(range(7))
    assert main_blocks(page, score, 0.65, is_article=True) == [0]


def trees_of_value(value: int) -> Trees:
    """Trees with the same score for all rows."""
    return Trees(("words",), np.zeros((1, 1), int), np.zeros((1, 1)), np.zeros((1, 2), int), value)


@pytest.mark.parametrize(
    ("kind", "score", "is_article"),
    [(ARTICLE + 1, 300, True), (ARTICLE, 200, False), (MAYBE_ARTICLE + 1, 200, False), (MAYBE_ARTICLE, 100, False)],
)
def test_pages_that_may_be_articles_use_the_mean_of_both_trees(kind, score, is_article):
    model = Model(trees_of_value(kind), trees_of_value(300), trees_of_value(100))
    found, read_as = scores(model, page_of("<body><p>Home<p>End"))
    assert (found.tolist(), read_as) == ([score] * 2, is_article)


def test_similar_blocks_are_counted_by_place_and_by_record():
    cards = "".join(f'<div class="card c{n}"><h3>Name {n}</h3><p>${n}<img src=x></p></div>' for n in range(4))
    rows = measure(page_of(f"<body><h1>Cards</h1><section>{cards}</section><p>End"))
    assert rows["record_count"].tolist() == [-1, *[4] * 8, -1]
    assert rows["record_place"].tolist() == [-1, *[0, 1] * 4, -1]
    assert rows["record_images"].tolist() == [-1, *[1] * 8, -1]
    assert rows["alike_deep_blocks"].tolist() == [1, *[4] * 8, 1]
    assert rows["price"].tolist() == [0, *[0, 1] * 4, 0] and rows["page_prices"].tolist() == [4]
    inner = "".join(f"<li>{n}<ul><li>a</ul></li>" for n in range(3))
    rows = measure(page_of(f"<body><ul>{inner}</ul>"))
    assert rows["record_count"].tolist() == [3] * 6  # a single <li> in a list is not a record; its parent is


def test_page_features_are_means_over_text_or_prose_or_come_from_the_headline():
    """Integers in thousandths by their definition; -1 and 0 without a headline or prose."""
    some = page_of(f"<body><p>Home</p><h1>A cart</h1><p>{PROSE}</p><p>{GERMAN}</p>")
    rows = measure(some)
    asked = ("mean:upper", "prose:upper", "headline:words", "mean:words")
    found = whole_page(some, rows, (*asked, "page_size"))
    assert set(asked) <= set(found) and "page_size" not in found
    thousandths = [int(one) for one in np.round(rows["upper"].astype(np.float32) * 1000)]
    sizes = some.size.tolist()
    assert found["mean:upper"].tolist() == [sum(map(int.__mul__, thousandths, sizes)) // sum(sizes)]
    assert found["prose:upper"].tolist() == [sum(map(int.__mul__, thousandths[2:], sizes[2:])) // sum(sizes[2:])]
    assert found["headline:words"].tolist() == [2000] and {row.dtype.kind for row in found.values()} == {"i"}
    found = whole_page(page_of("<body><p>Home"), measure(page_of("<body><p>Home")), asked)
    assert [found[name].tolist() for name in asked] == [[250], [0], [-1], [1000]]


def test_page_metadata_is_used():
    told = json.dumps({"@type": "Product", "name": "A cart", "description": "Two sacks of grain and a horse."})
    head = f'<link rel=canonical href="http://a.example/shop/cart"><script type="application/ld+json">{told}</script>'
    rows = measure(page_of(f"{head}<p>A cart<p>Two sacks of grain<p>Nothing of that kind"))
    assert rows["told"].tolist() == [0, 1, 0] and rows["told_name"].tolist() == [1, 0, 0]
    assert rows["page_is_product"][0] and rows["page_at_shop"][0] and not rows["page_at_forum"][0]
    rows = measure(page_of("<link rel=canonical href='http://['><p>text"))
    assert rows["page_at_shop"][0] == 0 and rows["page_depth"][0] == 1


def test_only_the_first_block_of_a_list_item_has_a_bullet():
    blocks = read_blocks("<p>a<ul><li>b<p>c</p></li><li><p>d</p>e</li></ul>", CONFIG)
    assert [bullet(blocks, n) + text for n, text in enumerate(blocks.texts)] == ["a", "- b", "c", "- d", "e"]


def test_measures_are_finite_and_do_not_depend_on_other_pages():
    random_ = random.Random(0)
    pieces = ["<p>", "</p>", "<div class=comment>", "</div>", "<li>", "<a href=x>", "</a>", "word ", "An end. ", "<br>",
              "<h2>", "</h2>", "<table><tr><td>", "</table>", PROSE, "字", "<b>", "<pre>", "</pre>", "\x02",
              "&#3;"]  # fmt: skip
    for _ in range(200):
        body = "".join(random_.choices(pieces, k=random_.randrange(1, 60)))
        blocks = read_blocks(f"<body>{body}", CONFIG)
        if blocks.texts:
            rows = measure(Page(blocks))
            assert all(row.shape in ((len(blocks.texts),), (1,)) for row in rows.values())
            assert all(np.isfinite(row).all() for row in rows.values())
            assert load_model().other.score(rows).dtype == load_model().article.score(rows).dtype == np.int64
        words = body.replace("<", " <").replace("&#3;", " ")
        assert "".join(blocks.texts).count("字") == words.count("字")


@pytest.mark.skipif(not (SHARED / "bench/extraction_f1.py").exists(), reason="../shared is not here")
def test_the_benchmark_of_article_extraction():
    """The bar is the score of DataTrove's extraction on these pages plus half a point."""
    scorer = runpy.run_path(str(SHARED / "bench/extraction_f1.py"))
    shingles = scorer["shingles"]
    truth = {one["url"]: one["articleBody"] for one in json.loads(scorer["TRUTH"].read_text()).values()}
    precision, recall = [], []
    for one in read_pages(SHARED / "data/extraction/aeb.warc.gz"):
        wanted, got = shingles(truth[one.url]), shingles(extract_text(one, CONFIG)[0])
        hit = (wanted & got).total()
        precision.append(hit / max(got.total(), 1))
        recall.append(hit / max(wanted.total(), 1))
    p, r = np.mean(precision), np.mean(recall)
    assert len(precision) == 181 and 2 * p * r / (p + r) > 0.96


def test_verse_and_dialogue_are_complete_although_unlike_articles():
    """A play in short lines, on a plain page and within a site's navigation."""
    acts = [f"<p>Gaoler {n}.<br>Who knocks at door {n}?<br>Thy cousin, sirrah: up!</p>" for n in range(400)]
    menu = "".join(f"<li><a href='/{n}'>Play number {n}</a></li>" for n in range(60))
    play = f"<html><body>%s<div>{''.join(acts)}</div>%s</body></html>"
    for before, after in (("", ""), (f"<nav><ul>{menu}</ul></nav>", f"<footer><ul>{menu}</ul></footer>")):
        text, _ = extract_text(page((play % (before, after)).encode()), EXTRACT)
        assert [f"Gaoler {n}." in text for n in range(400)] == [True] * 400
        assert "Play number" not in text


NAVIGATION = "Home News Sport Weather Contact us"
COPYRIGHT = "Copyright 2026 Example Ltd. All rights reserved. Registered in England and Wales, number 123456."


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"<nav>{NAVIGATION}</nav>", f"<footer><p>{COPYRIGHT}</p></footer>"),
        (f"<div role=navigation><p>{NAVIGATION}</div>", f"<div role=contentinfo>{COPYRIGHT}</div>"),
        (f"<ul role=menu><li>{NAVIGATION}</ul>", f"<p itemtype=http://schema.org/WPFooter>{COPYRIGHT}</p>"),
        (f"<header><nav><p>{NAVIGATION}</nav></header>", f"<footer><blockquote>{COPYRIGHT}</blockquote></footer>"),
        ("", f"<article><p>{GERMAN}</p><footer>{COPYRIGHT}</footer></article>"),
    ],
)
@pytest.mark.parametrize("link", ["", "<a href=/x>More of the miller and his cart, and of the boy on the bridge</a>"])
def test_navigation_and_footers_are_not_main_text_with_or_without_links(before, after, link):
    """The rest of a page with hardly any links is main text."""
    body = f"<html><body>{before}<div><p>{PROSE}</p><p>{PROSE} And again. {link}</p></div>{after}</body></html>"
    text = main_text(body.encode())
    assert text.count(PROSE) == 2
    assert NAVIGATION not in text and COPYRIGHT not in text


def test_the_footer_of_a_quotation_keeps_its_author():
    body = f"<p>{PROSE}</p><blockquote><p>{GERMAN}</p><footer>The miller, in his own words</footer></blockquote>"
    assert main_text(html(body)) == f"{PROSE}\n{GERMAN}\nThe miller, in his own words"


@pytest.mark.parametrize("tag", ["nav", "footer"])
def test_an_unclosed_element_removes_no_text(tag):
    body = f"<html><body><{tag}><p>{NAVIGATION}</p><article><p>{PROSE}</p><p>{GERMAN}</p></article></body></html>"
    text = main_text(body.encode())
    assert PROSE in text and GERMAN in text
