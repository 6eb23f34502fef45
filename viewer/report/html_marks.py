"""The HTML of a page with what extraction kept of it marked: a string cut in pieces, nothing of it changed."""

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
"""What ends an element, or a comment, whose content is no text of the page's body."""
SURE = 24
"""Characters of a run of text that are enough to know it by, wherever in the rest of the text it stands."""
NEAR = 4
"""A shorter run is known where it comes next: at most a bullet or a bar of a table lies between."""
REACH = 100_000
"""Characters of kept text in which such a run is looked for: a bound for each run, so that a page of many runs that
were not kept takes time in proportion to its size."""
LONGEST, LONGEST_KEPT = 240, 2000
"""Characters that a piece is shortened to: one that was not kept, and one that was."""
CUT_OFF = 160
"""Pieces beyond which the middle of a stretch without kept text is left out."""

Kind = Literal["kept", "text", "markup", "cut"]


@dataclass(frozen=True)
class HtmlPiece:
    """A part of the HTML, or, where `kind` is "cut", how many characters of it are not shown."""

    kind: Kind
    text: str


def pieces_of(source: str, kept: str) -> list[HtmlPiece]:
    """All of `source`, in order: markup, and text which is "kept" where it stands in `kept`, the extracted text.

    Both are read in their order, so that a menu's "Home" is not taken for one in a sentence. It is a likeness of
    what extraction did, found by comparing the two: runs of text that extraction joined or changed count as not kept.
    """
    wanted, found = " ".join(kept.split()), []
    at = sure_at = 0  # ends, in `wanted`, of the last run that was found, and of the last one beyond doubt
    doubtful: list[tuple[int, int]] = []  # (piece, its end in `wanted`) of the short runs since
    for piece in scan(source):
        run = " ".join(html.unescape(piece).split()) if piece[0] != "<" or len(piece) == 1 else ""
        found.append(HtmlPiece("text" if run else "markup", piece))
        if len(run) >= SURE:
            place = wanted.find(run, sure_at, sure_at + REACH + len(run))
            if place >= 0:
                for number, end in doubtful:
                    if end > place:  # a menu's "The", where the text begins with "The"
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
    """`source` in pieces: runs of text, tags, comments and whole elements without text of the page. Linear in its
    length."""
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
    """The pieces up to the last one that is kept, and a little more, shortened where nothing was kept for long."""
    last = max((number for number, piece in enumerate(pieces) if piece.kind == "kept"), default=-1)
    end = last + 1 + CUT_OFF // 8 if last >= 0 else CUT_OFF
    shown: list[HtmlPiece] = []
    stretch: list[HtmlPiece] = []
    for piece in pieces[:end]:
        if piece.kind == "kept":
            shown += [*shortened(stretch), *shortened([piece], LONGEST_KEPT)]
            stretch = []
        else:
            stretch.append(piece)
    shown += shortened(stretch)
    return [*shown, *left_out(sum(len(piece.text) for piece in pieces[end:]))]


def shortened(stretch: list[HtmlPiece], longest: int = LONGEST) -> list[HtmlPiece]:
    """A stretch of pieces: long ones by their beginning, and of many the first and the last."""
    if len(stretch) > CUT_OFF:
        middle = stretch[CUT_OFF // 2 : -CUT_OFF // 2]
        parts = [*stretch[: CUT_OFF // 2], *left_out(sum(len(p.text) for p in middle)), *stretch[-CUT_OFF // 2 :]]
    else:
        parts = stretch
    found: list[HtmlPiece] = []
    for piece in parts:
        if piece.kind == "cut" or len(piece.text) <= longest:
            found.append(piece)
        else:
            found += [HtmlPiece(piece.kind, piece.text[:longest]), *left_out(len(piece.text) - longest)]
    return found


def left_out(characters: int) -> list[HtmlPiece]:
    return [HtmlPiece("cut", f"{characters:,}")] if characters else []
