"""Pages designed to cost more than their size, of any length; for tests of extraction."""

from collections.abc import Callable

from tests.data_prep.pages import PROSE

SENTENCE = f"<p>{PROSE[:110]}.</p>"


def repeated(piece: str, before: str = "", behind: str = "") -> Callable[[int], str]:
    return lambda n: before + piece * (n // len(piece)) + behind


def numbered(piece: Callable[[int], str], before: str = "", behind: str = "") -> Callable[[int], str]:
    return lambda n: before + "".join(map(piece, range(n // len(piece(12345))))) + behind


HOSTILE: dict[str, Callable[[int], str]] = {
    "attributes": numbered(lambda i: f"a{i}=x ", "<div ", f">{SENTENCE}"),
    "the same attribute": repeated("a=x ", "<div ", f">{SENTENCE}"),
    "attributes with brackets": numbered(lambda i: f'a{i}=">" ', "<div ", f">{SENTENCE}"),
    "nested": repeated("<div>", behind=SENTENCE),
    "angle brackets": repeated("<"),
    "cut tags": repeated("<x"),
    "open quotes": repeated('<a b="'),
    "line breaks": repeated("<br>", SENTENCE),
    "lines": repeated("<br>a"),
    "blanks before a break": repeated(" ", "<p>a", "b<br>c"),
    "blanks": repeated(" \n", "<pre>a", "b"),
    "paragraphs left open": repeated("<p>"),
    "lists left open": repeated("<ul><li>a"),
    "bold paragraphs": numbered(lambda i: f"<b id={i}><p>"),
    "paragraphs of bold": numbered(lambda i: f"<p><b id={i}>x"),
    "links left open": repeated("<a href=x>x"),
    "fonts": numbered(lambda i: f"<font size={i}>", behind="<p>x" * 100),
    "character references": repeated("<p>&copy;&notit;&#x41;"),
    "cells": repeated("<tr>" + "<td>1</td>" * 10 + "</tr>", "<table>", "</table>"),
    "one row": repeated("<td>a1", "<table><tr>"),
    "nested tables": repeated("<table><tr><td>"),
    "tables": repeated("<table><tr><td>a</td></tr></table>"),
    "end tags": repeated("</x></p>", "<div>" * 200),
    "comments left open": repeated("<!--"),
    "comments": repeated("<!---->"),
    "scripts left open": repeated("<script>"),
    "escaped JSON": repeated("\\", '<script type="application/ld+json">"@type":"'),
    "JSON types": repeated('"@type":"' + "A" * 1000, '<script type="application/ld+json">'),
    "blanks in JSON": repeated(" ", '<script type="application/ld+json">"@type":'),
    "blanks in a JSON list": repeated("\n", '<script type="application/ld+json">"@type" : [', '"Article"'),
    "blanks before a JSON type": repeated('"@type"' + " " * 99, '<script type="application/ld+json">'),
    "JSON texts": repeated('"description":"a b c","name":"', '<script type="application/ld+json">', '"</script><p>a'),
    "a description": repeated("a b ", '<meta name=description content="', f'">{SENTENCE}'),
    "records": repeated("<div class=card><p>a b c<img src=x></div>"),
    "records in records": repeated("<ul><li>a<ul><li>b<ul><li>c</ul></ul></ul>"),
    "without scripts": repeated("<noscript><p>ab</noscript>"),
    "one class": repeated("comment ", '<div class="', f'">{SENTENCE}'),
    "classes": numbered(lambda i: f'<p class="c{i}x{i * 7}">ab'),
    "style": repeated(" ", '<div style="display', f'">{SENTENCE}'),
    "one word": repeated("a", "<p>"),
    "prose": repeated(SENTENCE),
    "linked paragraphs": repeated("<p><a href=x>aa</a></p>"),
    "paragraphs in boxes": repeated("<div><p>a</p></div>"),
    "headings": repeated("<h1>Title x</h1>"),
    "title": lambda n: f"<title>{'a' * (n // 2)}</title>" + f"<p>{'a' * 40}b</p>" * (n // 96),
    "buttons": repeated("<button>"),
    "options": repeated("<select><option>a"),
    "drawings": repeated("<svg><math>"),
    "forms": repeated("<form>"),
    "images": repeated("<img src=x>"),
    "zeros": repeated("\0"),
    "sections": repeated("<![CDATA["),
    "instructions": repeated("<?x"),
    "types": repeated('<meta property="og:type" content="article">'),
    "dates": repeated("2019-11-12 ", "<p>"),
    "authors": repeated("John Smith and ", '<p class="author">by '),
    "slashes": repeated("/", "<p>"),
    "quotations": repeated("<blockquote>"),
    "ruby": repeated("<ruby>a<rt>"),
}
