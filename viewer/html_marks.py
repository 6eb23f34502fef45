"""Mark the parts of a page's HTML that text extraction kept: split the string into pieces, without changing it."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

PIECE = re.compile(r"<[^<>]*>|[^<]+|<")
RAW = re.compile(r"<(title|script|style|svg|noscript|template)\b", re.IGNORECASE)
ENDS = {
    name: re.compile(rf"</{name}\s*>", re.IGNORECASE)
    for name in ("title", "script", "style", "svg", "noscript", "template")
} | {"!--": re.compile("-->")}
"""Ends of comments and of elements whose content is not text of the page."""
SURE = 24
"""A run of text with this many characters is identified anywhere in the rest of the text."""
NEAR = 4
"""A shorter run must come next: at most a bullet or a table border may come before it."""
REACH = 100_000
"""Characters of kept text to search for a run: bounded, so that a page with many runs not kept takes linear time."""
LONGEST, LONGEST_KEPT = 240, 2000
"""Maximum characters of a piece that was not kept, and of one that was kept."""
CUT_OFF = 160
"""Maximum pieces of a stretch without kept text; the middle of a longer one is omitted."""

Kind = Literal["kept", "text", "markup", "cut"]


@dataclass(frozen=True)
class HtmlPiece:
    """Part of the HTML: kept text, other text, or markup. For the kind "cut", the number of omitted characters."""

    kind: Kind
    text: str


def pieces_of(source: str, kept: str) -> list[HtmlPiece]:
    """Split the HTML `source` into pieces of markup and text, and mark text that is also in `kept`, the extracted text.

    Both are read in order, so that "Home" in a menu does not match one in a sentence. The result is approximate, since
    it only compares the two texts: text that extraction joined or changed counts as not kept.
    """
    wanted, found = " ".join(kept.split()), []
    at = sure_at = 0  # ends in `wanted` of the last run found, and of the last certain one
    doubtful: list[tuple[int, int]] = []  # (piece, its end in `wanted`) of short runs since then
    for piece in scan(source):
        run = " ".join(html.unescape(piece).split()) if piece[0] != "<" or len(piece) == 1 else ""
        found.append(HtmlPiece("text" if run else "markup", piece))
        if len(run) >= SURE:
            place = wanted.find(run, sure_at, sure_at + REACH + len(run))
            if place >= 0:
                for number, end in doubtful:
                    if end > place:  # "The" in a menu, if the text begins with "The"
                        found[number] = HtmlPiece("text", found[number].text)
                found[-1] = HtmlPiece("kept", piece)
                at = sure_at = place + len(run)
                doubtful = []
        elif run:
            place = wanted.find(run, at, at + NEAR + len(run))
            if place >= 0:
                found[-1] = HtmlPiece("kept", piece)
                at = place + len(run)
                doubtful.append((len(found) - 1, at))
    return found


def scan(source: str) -> Iterator[str]:
    """Split the HTML `source` into text, tags, comments, and whole elements without text, such as <script>. Takes
    linear time, also for hostile HTML."""
    at, endless = 0, set()
    while at < len(source):
        opening = RAW.match(source, at)
        name = "!--" if source.startswith("<!--", at) else opening[1].lower() if opening else ""
        if name and name not in endless:
            if end := ENDS[name].search(source, at):
                yield source[at : end.end()]
                at = end.end()
                continue
            endless.add(name)
        piece = PIECE.match(source, at)
        assert piece
        yield piece[0]
        at = piece.end()


def shown_pieces(pieces: list[HtmlPiece]) -> list[HtmlPiece]:
    """Return the pieces to show: shortened, and without most of what follows the last kept piece."""
    last = max((number for number, piece in enumerate(pieces) if piece.kind == "kept"), default=-1)
    end = last + 1 + CUT_OFF // 8 if last >= 0 else CUT_OFF
    shown = []
    stretch = []
    for piece in pieces[:end]:
        if piece.kind == "kept":
            shown += [*shortened(stretch), *shortened([piece], LONGEST_KEPT)]
            stretch = []
        else:
            stretch.append(piece)
    shown += shortened(stretch)
    return [*shown, *left_out(sum(len(piece.text) for piece in pieces[end:]))]


def shortened(stretch: list[HtmlPiece], longest: int = LONGEST) -> list[HtmlPiece]:
    """Shorten a series of pieces: each to `longest` characters; if there are many, the middle pieces are omitted."""
    if len(stretch) > CUT_OFF:
        middle = stretch[CUT_OFF // 2 : -CUT_OFF // 2]
        parts = [*stretch[: CUT_OFF // 2], *left_out(sum(len(p.text) for p in middle)), *stretch[-CUT_OFF // 2 :]]
    else:
        parts = stretch
    found = []
    for piece in parts:
        if piece.kind == "cut" or len(piece.text) <= longest:
            found.append(piece)
        else:
            found += [HtmlPiece(piece.kind, piece.text[:longest]), *left_out(len(piece.text) - longest)]
    return found


def left_out(characters: int) -> list[HtmlPiece]:
    return [HtmlPiece("cut", f"{characters:,}")] if characters else []
