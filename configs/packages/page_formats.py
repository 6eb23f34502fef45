"""Convert files in packages to web pages: HTML unchanged; texts, MediaWiki exports and summaries as plain HTML."""

import bz2
import html
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from itertools import batched, groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from configs.packages.archives import LIMIT, LimitedReader, Member
from data_prep.config import PackagePages
from data_prep.documents import WebPage
from data_prep.warc import record_id
from lm.errors import InputError

if TYPE_CHECKING:
    from mwparserfromhell.nodes import Node
    from mwparserfromhell.wikicode import Wikicode

CONTENT_TYPE = "text/html; charset=utf-8"
WRAP_WIDTH = 65  # characters; prose in plain text is wrapped at 65 to 75, lines of verse seldom have 60
DROPPED_TAGS = (
    "ref", "references", "gallery", "timeline", "math", "table", "imagemap", "score", "syntaxhighlight", "source",
)  # fmt: skip
LIST_TAGS = ("li", "dd", "dt")


def pages_of_member(member: Member, pin: PackagePages) -> Iterator[WebPage]:
    """Yield the web pages in one file of a package. Raises InputError if it does not have the format pin.format."""
    try:
        if pin.format == "html":
            yield web_page(member.data, quote(member.name), member.date, member, pin, content_type="text/html")
        elif pin.format == "plain_text":
            yield page_of_text(member, pin)
        elif pin.format == "mediawiki_xml_bz2":
            yield from pages_of_mediawiki(member, pin)
        else:
            yield from pages_of_summaries(member, pin)
    except (ValueError, LookupError, TypeError, OSError, EOFError, ElementTree.ParseError) as error:
        raise InputError(
            f"{member.name} in {pin.file.name} is not in the format {pin.format}: {type(error).__name__}: {error}. "
            "Correct the pin's pattern or format."
        ) from error


def web_page(
    body: bytes, path: str, date: str, member: Member, pin: PackagePages, content_type: str = CONTENT_TYPE
) -> WebPage:
    """Return a page with the URL pin.address + `path`, and the names of archive and member as file_path."""
    url = pin.address + path
    return WebPage(url, record_id(url, "response"), date, content_type, body, f"{pin.file.name}/{member.name}")


def html_page(title: str, article: Iterable[str]) -> bytes:
    """Return a small HTML5 page with the HTML elements `article`. The title is in <header>, not in the main text."""
    lines = [
        "<!DOCTYPE html>",
        f'<html><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>',
        f"<body><header><h1>{html.escape(title)}</h1></header>",
        "<article>",
        *article,
        "</article></body></html>",
    ]
    return ("\n".join(lines) + "\n").encode()


def page_of_text(member: Member, pin: PackagePages) -> WebPage:
    """Return the page of a text file in UTF-8: empty lines separate paragraphs, and `unwrap` decides which line breaks
    are kept."""
    text = member.data.decode("utf-8-sig")
    blocks = re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip())
    paragraphs = ("<p>" + "<br>\n".join(map(html.escape, unwrap(block))) + "</p>" for block in blocks if block.strip())
    title = re.sub(r"[\W_]+", " ", PurePosixPath(member.name).stem).strip()
    return web_page(html_page(title, paragraphs), quote(member.name), member.date, member, pin)


def unwrap(block: str) -> list[str]:
    """Return the lines of a paragraph, with lines joined that were only wrapped at a fixed width.

    A line was wrapped if the next word would have made it longer than WRAP_WIDTH. A line of verse, a speaker's name or
    a list entry ends earlier, and stays a line.
    """
    lines: list[str] = []
    width = 0
    for raw in block.split("\n"):
        line = " ".join(raw.split())
        if not line:
            continue
        if lines and width + 1 + len(line.split(" ", 1)[0]) > WRAP_WIDTH:
            lines[-1] += " " + line
        else:
            lines.append(line)
        width = len(line)
    return lines


def pages_of_summaries(member: Member, pin: PackagePages) -> Iterator[WebPage]:
    """Yield pages of pin.entries_per_page summaries on one topic each, in the order of their titles.

    The file is a JSON object {title: {"title", "extract", "topic", ...}}. Raises ValueError if it is no object.
    """
    found = json.loads(member.data)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object of summaries")
    entries = sorted(found.values(), key=lambda entry: (entry["topic"], entry["title"]))
    for topic, of_topic in groupby(entries, key=lambda entry: entry["topic"]):
        for number, group in enumerate(batched(of_topic, pin.entries_per_page), start=1):
            article = []
            for entry in group:
                article.append(f"<h2>{html.escape(entry['title'])}</h2>")
                article += [f"<p>{html.escape(part)}</p>" for part in entry["extract"].split("\n") if part.strip()]
            path = f"{quote(topic.replace(' ', '_'))}/{number:04d}"
            yield web_page(html_page(f"{topic} {number}", article), path, member.date, member, pin)


def pages_of_mediawiki(member: Member, pin: PackagePages) -> Iterator[WebPage]:
    """Yield the articles in a bzip2-compressed XML export of MediaWiki as pages: namespace 0, without redirects."""
    with bz2.open(io.BytesIO(member.data)) as stream:
        # Expat itself refuses entities that expand without limit.
        source = LimitedReader(stream, LIMIT, member.name)  # ty: ignore[invalid-argument-type]
        for _, element in ElementTree.iterparse(source):
            if element.tag.rpartition("}")[2] != "page":
                continue
            title, text = element.findtext("{*}title", ""), element.findtext("{*}revision/{*}text", "")
            if element.findtext("{*}ns", "0") == "0" and element.find("{*}redirect") is None and text:
                date = element.findtext("{*}revision/{*}timestamp", member.date)
                body = html_page(title, wikitext_to_html(text))
                yield web_page(body, quote(title.replace(" ", "_")), date, member, pin)
            element.clear()


def wikitext_to_html(wikitext: str) -> list[str]:
    """Return the paragraphs, headings and lists of an article as HTML elements. Tables, notes, files and categories are
    dropped, and headings without text under them, such as those of references."""
    import mwparserfromhell

    text = text_of(mwparserfromhell.parse(wikitext))
    elements: list[str] = []
    headings: list[tuple[int, str]] = []
    for line in text.split("\n"):
        line = " ".join(line.split())
        heading = re.fullmatch(r"\x00(\d)(.*)", line)
        if heading:
            level = int(heading[1])
            headings = [h for h in headings if h[0] < level] + [(level, heading[2].strip())]
        elif re.search(r"\w", line) and not line.startswith(("|", "{|")):  # rows of tables too broken to parse
            elements += [f"<h{level}>{html.escape(title)}</h{level}>" for level, title in headings]
            headings = []
            tag = "li" if line.startswith("\x01") else "p"
            elements.append(f"<{tag}>{html.escape(line.lstrip(chr(1)).strip())}</{tag}>")
    wrapped: list[str] = []
    for is_list, run in groupby(elements, key=lambda element: element.startswith("<li>")):
        items = list(run)
        wrapped += ["<ul>", *items, "</ul>"] if is_list else items
    return wrapped


def text_of(code: "Wikicode | None") -> str:
    """Return the text of parsed wikitext, a paragraph per line. Headings begin with NUL and a level, items with
    \\x01."""
    return "" if code is None else "".join(text_of_node(node) for node in code.nodes)


def text_of_node(node: "Node") -> str:
    from mwparserfromhell import nodes

    match node:
        case nodes.Text():
            return node.value.replace("\x00", "").replace("\x01", "")
        case nodes.Heading():
            return f"\n\x00{min(node.level, 6)}{text_of(node.title)}\n"
        case nodes.Wikilink():
            return text_of_link(str(node.title), node.text)
        case nodes.ExternalLink():
            return text_of(node.title)
        case nodes.HTMLEntity():
            return node.normalize() or ""
        case nodes.Tag():
            name = str(node.tag).strip().lower()
            if name in LIST_TAGS:  # mark at the start of a line; its text follows as sibling nodes
                return "\x01"
            return "" if name in DROPPED_TAGS else " " if name == "br" else text_of(node.contents)
        case nodes.Template():
            return text_of_template(str(node.name).strip().lower(), [p.value for p in node.params if not p.showkey])
    return ""  # comments, arguments


def text_of_template(name: str, values: "list[Wikicode]") -> str:
    """Return the words of a sentence that a template stands for, such as {{lang|el|word}}; "" for most templates."""
    if name.startswith("lang") and values:  # {{lang|el|word}}, {{lang-el|word}}
        return text_of(values[0] if name.startswith("lang-") else values[-1])
    if name in ("convert", "cvt") and len(values) >= 2:  # {{convert|10|km|mi}}
        return f"{text_of(values[0])} {text_of(values[1])}"
    return ""


def text_of_link(target: str, text: "Wikicode | None") -> str:
    """Return the visible text of [[target|text]]; "" for files and categories, known by any prefix before a colon."""
    prefix, colon, rest = target.strip().partition(":")
    if colon and prefix and not rest.startswith(" "):
        return ""
    return text_of(text) if text is not None else target.strip().lstrip(":")
