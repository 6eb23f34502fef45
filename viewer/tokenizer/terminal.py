"""Show a tokenized text in the terminal: colored tokens with ids below them; control characters are escaped."""

import io
import sys
from collections.abc import Iterator

from lm.tokenizer import Tokenizer
from viewer.tokenizer.corpus import Corpus
from viewer.tokenizer.finding import Reading
from viewer.tokenizer.look import Piece, never_used, rarest
from viewer.training_data import short, visible

CELLS = ("on #f2c79b", "on #b9d9e8", "on #d5e3b0", "on #e3c7e8")
SHOWN = 500
"""Maximum tokens to show; the counts include all."""
EXAMPLES = 12
USUAL_WIDTH = 80
LANGUAGES = 8


def show(readings: list[Reading], with_bytes: bool, corpora: list[Corpus]) -> None:
    """Print the tokens of each reading, and its usage in `corpora`, which has one entry per reading or is empty. The
    text is plain if the output is not a terminal, or if NO_COLOR is set."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # do not fail if the output is not UTF-8
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.width = console.width or USUAL_WIDTH  # with COLUMNS=0 nothing would be shown
    for i, reading in enumerate(readings):
        if len(readings) > 1:
            console.print(clean(reading.name), style="bold")
        for line in flowed(reading.pieces[:SHOWN], with_bytes, console.width):
            console.print(line)
        if len(reading.pieces) > SHOWN:
            console.print(f"… the first {SHOWN:,} of {len(reading.pieces):,} tokens; the page shows more", style="dim")
        console.print(figures(reading))
        if corpora:
            console.print(of_corpus(corpora[i], reading.tokenizer))


def flowed(pieces: list[Piece], with_bytes: bool, width: int) -> Iterator:
    """Yield lines of at most `width` columns: a line of tokens, a line of their ids, a line of bytes if requested, and
    an empty line, repeated. A token with a line break ends its line."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    rows: list[tuple[int, list[str]]] = []
    used = 0

    def flush() -> Iterator[Text]:
        kinds = zip(*(row for _, row in rows), strict=True)
        for kind, entries in enumerate(kinds):
            line = Text(end="")
            for (number, row), entry in zip(rows, entries, strict=True):
                wide = max(map(cell_len, row))
                if kind == 0:
                    line.append(entry, f"#1f1d1a {CELLS[number % len(CELLS)]}")
                    line.append(" " * (wide - cell_len(entry) + 1))
                else:
                    line.append(set_cell_size(entry, wide + 1), "dim")
            line.rstrip()
            yield line
        yield Text()

    for number, piece in enumerate(pieces):
        row = [short(visible(piece.bytes)), str(piece.id)]
        if with_bytes:
            row.append(piece.bytes.hex())
        wide = max(map(cell_len, row)) + 1
        if rows and used + wide > width:
            yield from flush()
            rows, used = [], 0
        rows.append((number, row))
        used += wide
        if b"\n" in piece.bytes:
            yield from flush()
            rows, used = [], 0
    if rows:
        yield from flush()


def figures(reading: Reading) -> str:
    """Line with the characters, bytes, tokens and bytes per token of a text."""
    return (
        f"{clean(reading.name)}: {len(reading.text):,} characters, {reading.text_bytes:,} bytes, "
        f"{len(reading.pieces):,} tokens, {reading.bytes_per_token:.2f} bytes per token"
    )


def of_corpus(corpus: Corpus, tokenizer: Tokenizer) -> str:
    """Text of a few lines: bytes per token in the documents by language, the rarest tokens and unused ones."""
    usage, unused = corpus.usage, never_used(corpus.usage, tokenizer)
    name = lambda id: short(visible(tokenizer.token_bytes(id)))
    rare = [f"{name(id)} ({usage.counts[id]:,})" for id in rarest(usage, tokenizer, EXAMPLES)]
    lines = [
        f"{usage.texts:,} of {corpus.documents:,} documents: {usage.text_bytes:,} bytes, {usage.tokens:,} tokens, "
        f"{usage.bytes_per_token:.2f} bytes per token",
        *(
            f"  {clean(language)}: {rate:.2f} bytes per token in {documents:,} documents"
            for language, (documents, rate) in list(corpus.by_language.items())[:LANGUAGES]
        ),
        f"rarest: {'  '.join(rare) or 'none'}",
        f"never used: {len(unused):,} of {tokenizer.vocab_size:,} symbols "
        f"({100 * len(unused) / tokenizer.vocab_size:.1f} %){': ' if unused else ''}"
        f"{'  '.join(map(name, unused[-EXAMPLES:]))}",
    ]
    return "\n".join(lines)


def clean(text: str) -> str:
    """Replace characters that a terminal might interpret by U+FFFD."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
