"""Follow one document from its HTML to the model: choose it, mark the parts of its HTML that are kept, and
collect the data to show. Does not import JAX.

The choice depends on the hash of the id, so the same run always shows the same document. Held-out documents come first,
since the model has not been trained on them.
"""

import contextlib
import difflib
import html
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs.experiment import Experiment
from data_prep.extract.charset import decode
from data_prep.funnel.counts import order_of
from data_prep.funnel.report import rows_at
from data_prep.parquet import read_batches, read_footer, read_rows, rows_in
from data_prep.pii import replace_personal_data
from data_prep.shards.sizes import estimated_tokens, held_out_fraction
from data_prep.shards.tokenize import document_files
from data_prep.sources import InputFile
from data_prep.sources.manifest import manifest_files
from data_prep.verdict import Threshold
from lm.data.records import document_tables
from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.tokenizer import Tokenizer
from viewer.funnel import measured

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


SHOWN = 384
"""Maximum tokens of the document to show."""
MODERATE = range(300, 2001)
"""Preferred number of tokens: neither a fragment nor a book."""
CHARACTERS = 40 * SHOWN
"""Characters of the text to encode: SHOWN tokens rarely need more."""
FILES = 100
"""Number of files of documents/ whose first row groups the document is chosen from."""
CANDIDATES = 4
"""Number of candidates whose HTML is read: the first one from which extraction removed text is shown."""
SENTENCES = 0.5
"""A text counts as prose if this share of its lines ends a sentence."""


@dataclass(frozen=True)
class Candidate:
    """A document that may be chosen."""

    path: Path
    """File in documents/."""
    row: int
    """Row in that file, from 0."""
    archive: InputFile | None
    """WARC file with its HTML; None if there is none."""
    held_out: bool
    tokens: int
    """Tokens of the whole document (of its held-out part, if ends are held out), without BOS."""
    columns: dict
    """id, file_path, terminal_punctuation_lines."""

    @property
    def rank(self) -> tuple:
        """Sort key; the candidate with the lowest is chosen."""
        prose = (self.columns.get("terminal_punctuation_lines") or 0.0) >= SENTENCES
        order = order_of(self.columns["id"])
        return self.archive is None, not self.held_out, self.tokens not in MODERATE, not prose, order


@dataclass(frozen=True)
class FollowedDocument:
    """Data of the chosen document at every stage of the pipeline."""

    url: str
    date: str
    file_path: str
    """Its input file."""
    held_out: bool
    is_end: bool
    """Whether it is the held-out end of a document, by shards.held_out."""
    html: tuple[HtmlPiece, ...]
    """HTML with the extracted text marked; () if there is none."""
    html_bytes: int
    """Size of the page; 0 if there is no HTML."""
    lines: tuple[tuple[str, bool], ...]
    """(line of the passage, whether it is in the document); False for lines that filters removed."""
    text: str
    """The shown passage: the beginning of the document, or of its held-out end."""
    bytes: int
    """Bytes of the whole document."""
    tokens: int
    """Tokens of the whole document, without BOS."""
    ids: list[int]
    """Tokens of the passage, without BOS."""
    language: str
    language_score: float
    """Probability of `language`, 0 to 1."""
    values: list[list[Any]]
    """[measured value, threshold, False] for each threshold."""


def read_followed(
    workdir: Path, experiment: Experiment, tokenizer: Tokenizer, thresholds: list[Threshold], most_tokens: int = SHOWN
) -> FollowedDocument:
    """Choose a document of the run, and collect the data to show of its first `most_tokens` tokens. Raises InputError
    if documents/, tokens/ or pages/manifest.json is missing."""
    ends = experiment.shards.held_out == "ends"
    ranked = sorted(candidates(workdir, ends), key=lambda one: one.rank)[:CANDIDATES]
    if not ranked:
        raise InputError(
            f"There are no documents in {RunPaths(workdir).documents}. First run: python -m launch.pretrain"
        )
    if ranked[0].archive is None:
        ranked = ranked[:1]
    read = (follow(one, workdir, experiment, tokenizer, thresholds, most_tokens) for one in ranked)
    first = next(read)
    return next((one for one in itertools.chain([first], read) if any(p.kind == "text" for p in one.html)), first)


def candidates(workdir: Path, ends: bool) -> Iterator[Candidate]:
    """Yield the documents with at least two tokens from the first row group of each of the first FILES files. Set
    `ends` if shards.held_out is "ends"."""
    here = lambda file: file.kind == "warc" and isinstance(file.path, Path) and file.path.is_file()
    archives = {file.name: file for file in manifest_files(workdir) if here(file)}
    paths = sorted(RunPaths(workdir).documents.glob("*.parquet"))[:FILES]
    firsts = list(itertools.accumulate((rows_in(path) or 0 for path in paths), initial=0))
    rows = (row for table in document_tables(RunPaths(workdir).tokens) for row in read_rows(table, ["split", "tokens"]))
    splits = [(row["split"], row["tokens"] - 1) for row in itertools.islice(rows, firsts[-1] * (2 if ends else 1))]
    for path, first in zip(paths, firsts, strict=False):
        wanted = ["id", "file_path", "terminal_punctuation_lines"]
        columns = [name for name in wanted if name in read_footer(path).schema.names]
        for row, values in enumerate(next(read_batches(path, columns)).to_pylist() if rows_in(path) else []):
            number = 2 * (first + row) + 1 if ends else first + row
            split, tokens = splits[number] if number < len(splits) else ("", 0)  # without BOS
            if tokens > 0:
                yield Candidate(path, row, archives.get(values["file_path"]), split == "val", tokens, values)


def follow(
    one: Candidate, workdir: Path, experiment: Experiment, tokenizer: Tokenizer, thresholds: list[Threshold],
    most_tokens: int,
) -> FollowedDocument:  # fmt: skip
    """Collect the data to show of a document, with at most `most_tokens` tokens of its text."""
    from data_prep.warc import read_pages

    paths, shards, personal_data = RunPaths(workdir), experiment.shards, experiment.documents.personal_data
    ((_, row),) = rows_at(one.path, [one.row], read_footer(one.path).schema.names)
    is_end = shards.held_out == "ends"
    document = text = row["text"]
    if is_end:
        in_all = estimated_tokens(document_files(paths.documents), tokenizer.encode_array)
        text = document[int(len(document) * (1 - held_out_fraction(in_all, shards))) :]
    ids = tokenizer.encode(text[:CHARACTERS])[: min(SHOWN, most_tokens)]
    passage = tokenizer.decode_bytes(ids).decode("utf-8", "ignore")
    if is_end:
        lines = tuple((line, True) for line in passage.split("\n"))
    else:  # compare with the extracted text, before filters removed lines
        texts = paths.texts / one.path.name  # may have been deleted
        same_id = (found["text"] for found in read_rows(texts, ["id", "text"]) if found["id"] == row["id"])
        extracted = next(same_id, None) if texts.is_file() else None
        lines = lines_of(replace_personal_data(extracted or document, personal_data)[0], document, passage)
    # With the complete last line, which identifies the last paragraph of the HTML.
    kept = "\n".join([*(line for line, _ in lines[:-1]), text.split("\n")[passage.count("\n")]])
    page = None
    with contextlib.suppress(InputError):  # its archive may be missing or have changed
        pages = read_pages(one.archive.path) if one.archive else ()
        page = next((page for page in pages if page.id == row["id"]), None)
    html = shown_pieces(pieces_of(decode(page.body, page.content_type), kept)) if page else []
    return FollowedDocument(
        url=row["url"] or "",
        date=row["date"] or "",
        file_path=row["file_path"] or "",
        held_out=one.held_out,
        is_end=is_end,
        html=tuple(HtmlPiece(piece.kind, replace_personal_data(piece.text, personal_data)[0]) for piece in html),
        html_bytes=len(page.body) if page else 0,
        lines=lines,
        text=passage,
        bytes=len(text.encode("utf-8", "replace")),
        tokens=one.tokens,
        ids=ids,
        language=row["language"] or "",
        language_score=row["language_score"] or 0.0,
        values=measured(thresholds, row, f"{row['language']}_{row.get('language_script')}"),
    )


def lines_of(extracted: str, document: str, passage: str) -> tuple[tuple[str, bool], ...]:
    """Return (line, whether filters kept it) for the lines of `passage`, the beginning of `document`, and for the lines
    that filters removed from there. `extracted` is the text before the filters."""
    shown = passage.split("\n")
    # Enough lines for the passage and for lines that were removed before them.
    before = extracted[: 4 * len(passage) + 2000].split("\n")
    after = document.split("\n")[: len(shown)]
    lines = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if c >= len(shown) or (tag == "delete" and c == len(after)):
            break
        if tag == "delete":
            lines += [(line, False) for line in before[a:b]]
        lines += [(line, True) for line in shown[c:d]]
    return tuple(lines)
