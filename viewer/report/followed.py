"""One page followed from its HTML to the model: which page, and what is to be shown of it. No jax: it only reads files.

The page is drawn by the hash of its id, so that the same run shows the same page, and held out from training wherever
that can be, so that the model's loss on it is an honest one.
"""

import difflib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from configs.experiment import Experiment
from data_prep.config import PersonalDataConfig, ShardsConfig
from data_prep.documents import WebPage
from data_prep.extract.charset import decode
from data_prep.funnel.counts import order_of
from data_prep.funnel.excerpts import rows_at
from data_prep.parquet import read_batches, rows_in
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
from viewer.report.html_marks import HtmlPiece, pieces_of, shown_pieces

SHOWN = 384
"""Tokens of the document that are shown."""
MODERATE = range(300, 2001)
"""Tokens of a document that is neither a scrap nor a book."""
CHARACTERS = 40 * SHOWN
"""Of the text that are encoded: the first SHOWN tokens hardly ever need more."""
FILES = 100
"""Files of documents/ among whose first row groups the page is chosen."""
LOOKED_AT = 4
"""Candidates whose HTML is read: the first one of which extraction left some text out is shown."""
SENTENCES = 0.5
"""Share of lines that end a sentence, from which on a text is taken for prose."""


@dataclass(frozen=True)
class Candidate:
    """A document that may be shown."""

    path: Path
    """Its file of documents/."""
    row: int
    archive: InputFile | None
    """The WARC file that holds its HTML; None where there is none."""
    held_out: bool
    tokens: int
    """Of the whole document (of its held-out part, where ends are held out), its head not counted."""
    columns: dict
    """id, file_path, terminal_punctuation_lines."""

    @property
    def rank(self) -> tuple:
        """The lowest is shown."""
        readable = (self.columns.get("terminal_punctuation_lines") or 0.0) >= SENTENCES
        place = order_of(self.columns["id"])
        return self.archive is None, not self.held_out, self.tokens not in MODERATE, not readable, place


@dataclass(frozen=True)
class FollowedPage:
    """One page on its way."""

    url: str
    date: str
    file_path: str
    """The input file that it is from."""
    held_out: bool
    is_end: bool
    """Whether it is the held-out end of a document, by shards.held_out."""
    html: tuple[HtmlPiece, ...]
    """() where there is no HTML."""
    html_bytes: int
    lines: tuple[tuple[str, bool], ...]
    """(line of the passage, whether it is in the document): False of lines that filters took out of the text."""
    text: str
    """The passage that is shown: the beginning of the document, as documents/ has it, that ids[1:] stand for."""
    text_bytes: int
    """Of the whole document."""
    tokens: int
    """Of the whole document, its head not counted."""
    ids: tuple[int, ...]
    """The document's head and the tokens of the passage."""
    language: str
    language_score: float
    values: tuple[tuple[Threshold, float | None], ...]
    """Every threshold, in the order in which they are applied, and what was measured of this text."""


def read_followed(
    workdir: Path, experiment: Experiment, tokenizer: Tokenizer, thresholds: tuple[Threshold, ...]
) -> FollowedPage:
    """The page of a run that is shown. Raises InputError when documents/, tokens/ or pages/manifest.json is missing."""
    ends = experiment.shards.held_out == "ends"
    ranked = sorted(candidates(workdir, ends), key=lambda one: one.rank)[:LOOKED_AT]
    if not ranked:
        raise InputError(
            f"There are no documents in {RunPaths(workdir).documents}. First run: python -m launch.pretrain"
        )
    if ranked[0].archive is None:
        ranked = ranked[:1]
    made = (follow(one, workdir, experiment, tokenizer, thresholds) for one in ranked)
    first = next(made)
    return next((one for one in itertools.chain([first], made) if any(p.kind == "text" for p in one.html)), first)


def candidates(workdir: Path, ends: bool) -> Iterator[Candidate]:
    """Documents of the first row groups of the first FILES files, as far as they have a token to predict."""
    here = lambda file: file.kind == "warc" and isinstance(file.path, Path) and file.path.is_file()
    archives = {file.name: file for file in manifest_files(workdir) if here(file)}
    paths = sorted(RunPaths(workdir).documents.glob("*.parquet"))[:FILES]
    firsts = list(itertools.accumulate((rows_in(path) or 0 for path in paths), initial=0))
    splits = split_of(RunPaths(workdir).tokens, firsts[-1] * (2 if ends else 1))
    for path, first in zip(paths, firsts, strict=False):
        wanted = ["id", "file_path", "terminal_punctuation_lines"]
        columns = [name for name in wanted if name in pq.read_schema(path).names]
        for row, values in enumerate(next(read_batches(path, columns)).to_pylist() if rows_in(path) else []):
            number = 2 * (first + row) + 1 if ends else first + row
            if number < len(splits) and splits[number][1] > 1:
                split, tokens = splits[number]
                yield Candidate(path, row, archives.get(values["file_path"]), split == "val", tokens - 1, values)


def split_of(tokens: Path, rows: int) -> list[tuple[str, int]]:
    """(split, tokens) of the first `rows` documents, by number."""
    found: list[tuple[str, int]] = []
    for path in document_tables(tokens):
        for batch in read_batches(Path(str(path)), ["split", "tokens"]):
            if len(found) >= rows:
                return found
            found += zip(batch["split"].to_pylist(), batch["tokens"].to_pylist(), strict=True)
    return found


def end_of(document: str, workdir: Path, shards: ShardsConfig, tokenizer: Tokenizer) -> str:
    """What is held out of a document by shards.held_out = ends."""
    tokens = estimated_tokens(document_files(RunPaths(workdir).documents), tokenizer.encode_array)
    return document[int(len(document) * (1 - held_out_fraction(tokens, shards))) :]


def follow(
    one: Candidate, workdir: Path, experiment: Experiment, tokenizer: Tokenizer, thresholds: tuple[Threshold, ...]
) -> FollowedPage:
    """What is shown of one document."""
    shards, personal_data = experiment.shards, experiment.documents.personal_data
    ((_, row),) = rows_at(one.path, [one.row], pq.read_schema(one.path).names)
    is_end = shards.held_out == "ends"
    document: str = row["text"]
    text = end_of(document, workdir, shards, tokenizer) if is_end else document
    ids = tokenizer.encode(text[:CHARACTERS])[:SHOWN]
    passage = tokenizer.decode_bytes(ids).decode("utf-8", "ignore")
    # All that came before the filters took lines out: what extraction kept of the HTML.
    extracted = extracted_text(RunPaths(workdir).texts / one.path.name, row["id"]) or document
    extracted, _ = replace_personal_data(extracted, personal_data)
    lines = (
        lines_of(extracted, document, passage) if not is_end else tuple((line, True) for line in passage.split("\n"))
    )
    # The last line as a whole, by which the HTML's last paragraph is known.
    kept = "\n".join([*(line for line, _ in lines[:-1]), text.split("\n")[passage.count("\n")]])
    page = page_of(one)
    html = decode(page.body, page.content_type) if page else ""
    label = f"{row['language']}_{row.get('language_script')}"
    return FollowedPage(
        url=row["url"] or "",
        date=row["date"] or "",
        file_path=row["file_path"] or "",
        held_out=one.held_out,
        is_end=is_end,
        html=without_personal_data(shown_pieces(pieces_of(html, kept)), personal_data),
        html_bytes=len(page.body) if page else 0,
        lines=lines,
        text=passage,
        text_bytes=len(text.encode("utf-8", "replace")),
        tokens=one.tokens,
        ids=(tokenizer.bos_id, *ids),
        language=row["language"] or "",
        language_score=row["language_score"] or 0.0,
        values=tuple((threshold.of_language(label), row.get(threshold.signal)) for threshold in thresholds),
    )


def page_of(one: Candidate) -> WebPage | None:
    """The page itself, None where its archive is none, or no longer the one that was read."""
    from data_prep.warc import read_pages

    try:
        pages = read_pages(one.archive.path) if one.archive else ()
        return next((page for page in pages if page.id == one.columns["id"]), None)
    except InputError:
        return None


def extracted_text(texts: Path, id: str) -> str | None:
    """The text of a document as it was extracted; None where it is not found."""
    if not texts.is_file():
        return None
    for batch in read_batches(texts, ["id", "text"]):
        ids = batch["id"].to_pylist()
        if id in ids:
            return batch["text"][ids.index(id)].as_py()
    return None


def lines_of(extracted: str, document: str, passage: str) -> tuple[tuple[str, bool], ...]:
    """The lines of `passage`, the beginning of `document`, and among them those of `extracted` that were taken out."""
    shown = passage.split("\n")
    # As many lines as the passage has, and some that may have been taken out before them.
    before = extracted[: 4 * len(passage) + 2000].split("\n")
    after = document.split("\n")[: len(shown)]
    lines: list[tuple[str, bool]] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if c >= len(shown) or (tag == "delete" and c == len(after)):
            break
        if tag == "delete":
            lines += [(line, False) for line in before[a:b]]
        lines += [(line, True) for line in shown[c:d]]
    return tuple(lines)


def without_personal_data(pieces: list[HtmlPiece], config: PersonalDataConfig) -> tuple[HtmlPiece, ...]:
    """The pieces with personal data replaced, as it is in all texts that the report shows."""
    return tuple(HtmlPiece(piece.kind, replace_personal_data(piece.text, config)[0]) for piece in pieces)
