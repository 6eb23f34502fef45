"""Pages designed to cost more than their size, of any length; for tests of extraction."""

from collections.abc import Callable

from tests.data_prep.pages import PROSE

SENTENCE = f"<p>{PROSE[:110]}.</p>"


def repeated(piece: str, before: str = "", behind: str = "") -> Callable[[int], str]:
    return lambda n: before + piece * (n // len(piece)) + behind


def numbered(piece: Callable[[int], str], before: str = "", behind: str = "") -> Callable[[int], str]:
    return lambda n: before + "".join(map(piece, range(n // len(piece(12345))))) + behind


PIECES = {
    "angle brackets": "<",
    "cut tags": "<x",
    "open quotes": '<a b="',
    "lines": "<br>a",
    "paragraphs left open": "<p>",
    "lists left open": "<ul><li>a",
    "links left open": "<a href=x>x",
    "character references": "<p>&copy;&notit;&#x41;",
    "nested tables": "<table><tr><td>",
    "tables": "<table><tr><td>a</td></tr></table>",
    "comments left open": "<!--",
    "comments": "<!---->",
    "scripts left open": "<script>",
    "records": "<div class=card><p>a b c<img src=x></div>",
    "records in records": "<ul><li>a<ul><li>b<ul><li>c</ul></ul></ul>",
    "without scripts": "<noscript><p>ab</noscript>",
    "prose": SENTENCE,
    "linked paragraphs": "<p><a href=x>aa</a></p>",
    "paragraphs in boxes": "<div><p>a</p></div>",
    "headings": "<h1>Title x</h1>",
    "buttons": "<button>",
    "options": "<select><option>a",
    "drawings": "<svg><math>",
    "forms": "<form>",
    "images": "<img src=x>",
    "zeros": "\0",
    "sections": "<![CDATA[",
    "instructions": "<?x",
    "types": '<meta property="og:type" content="article">',
    "quotations": "<blockquote>",
    "ruby": "<ruby>a<rt>",
}
"""{name: what a page of this kind repeats}."""
HOSTILE: dict[str, Callable[[int], str]] = {
    **{name: repeated(piece) for name, piece in PIECES.items()},
    "attributes": numbered(lambda i: f"a{i}=x ", "<div ", f">{SENTENCE}"),
    "the same attribute": repeated("a=x ", "<div ", f">{SENTENCE}"),
    "attributes with brackets": numbered(lambda i: f'a{i}=">" ', "<div ", f">{SENTENCE}"),
    "nested": repeated("<div>", behind=SENTENCE),
    "line breaks": repeated("<br>", SENTENCE),
    "blanks before a break": repeated(" ", "<p>a", "b<br>c"),
    "blanks": repeated(" \n", "<pre>a", "b"),
    "bold paragraphs": numbered(lambda i: f"<b id={i}><p>"),
    "paragraphs of bold": numbered(lambda i: f"<p><b id={i}>x"),
    "fonts": numbered(lambda i: f"<font size={i}>", behind="<p>x" * 100),
    "cells": repeated("<tr>" + "<td>1</td>" * 10 + "</tr>", "<table>", "</table>"),
    "one row": repeated("<td>a1", "<table><tr>"),
    "end tags": repeated("</x></p>", "<div>" * 200),
    "escaped JSON": repeated("\\", '<script type="application/ld+json">"@type":"'),
    "JSON types": repeated('"@type":"' + "A" * 1000, '<script type="application/ld+json">'),
    "blanks in JSON": repeated(" ", '<script type="application/ld+json">"@type":'),
    "blanks in a JSON list": repeated("\n", '<script type="application/ld+json">"@type" : [', '"Article"'),
    "blanks before a JSON type": repeated('"@type"' + " " * 99, '<script type="application/ld+json">'),
    "JSON texts": repeated('"description":"a b c","name":"', '<script type="application/ld+json">', '"</script><p>a'),
    "a description": repeated("a b ", '<meta name=description content="', f'">{SENTENCE}'),
    "one class": repeated("comment ", '<div class="', f'">{SENTENCE}'),
    "classes": numbered(lambda i: f'<p class="c{i}x{i * 7}">ab'),
    "style": repeated(" ", '<div style="display', f'">{SENTENCE}'),
    "one word": repeated("a", "<p>"),
    "title": lambda n: f"<title>{'a' * (n // 2)}</title>" + f"<p>{'a' * 40}b</p>" * (n // 96),
    "dates": repeated("2019-11-12 ", "<p>"),
    "authors": repeated("John Smith and ", '<p class="author">by '),
    "slashes": repeated("/", "<p>"),
}
