"""Page of a tokenizer: one file that loads nothing. Texts are escaped by jinja2's autoescape."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from lm.errors import InputError
from lm.storage import write_atomically
from lm.tokenizer import BytePairTokenizer, Tokenizer
from viewer.formats import count, plain
from viewer.run_folder import FinishedRun
from viewer.templates import fill
from viewer.tokenizer.corpus import Corpus, read_corpus
from viewer.tokenizer.finding import DEFAULT_TEXT, Reading, read_with
from viewer.tokenizer.look import Merge, has_tokens, known, longest, merges, never_used, rarest, single_bytes
from viewer.tokenizer.samples import KINDS, LANGUAGES
from viewer.training_data import has_letter, short, visible

HERE = Path(__file__).parent
SHOWN = 4000
"""Maximum tokens of the text on the page; figures count all."""
SENTENCE = 300
"""Characters of the text whose merges are shown."""
EXAMPLES = 48
RUN_DOCUMENTS, RUN_CHARACTERS = 200, 10_000
"""Documents to count in for the page of a run, and maximum characters of each, to bound the time."""


@dataclass(frozen=True)
class Story:
    """Merges of one sentence, step by step."""

    sentence: str
    single: list[str]
    """Its bytes, made visible."""
    merges: list[Merge]
    pieces: list[str]
    """Its final tokens, made visible."""
    data: str
    """JSON for the script of the page."""
    curve: str
    """Sequence length over vocabulary size (logarithmic), as points of a polyline in a 1000 x 100 box."""
    ticks: list[tuple[float, str]]
    """(position along the curve in percent, vocabulary size)."""


@dataclass(frozen=True)
class Rate:
    """Result of one tokenizer on one sample."""

    bytes_per_token: float
    tokens: int
    share: float
    """Length of its bar, in percent of the longest."""
    relative: float | None
    """Its tokens as a multiple of those for the first sample of the table, if it has any."""


def story_of(reading: Reading) -> Story | None:
    """Merges of the text's first SENTENCE characters; None if the vocabulary has no merges."""
    tokenizer, sentence = reading.tokenizer, reading.text[:SENTENCE]
    if not isinstance(tokenizer, BytePairTokenizer) or not sentence:
        return None
    steps = list(merges(sentence, tokenizer))
    single = [tokenizer.tokens[id] for piece in single_bytes(sentence, tokenizer) for id in piece]
    ids = steps[-1].ids if steps else [tokenizer.ranks[byte] for byte in single]
    data = {
        "bits": [f"{byte[0]:08b}" for byte in single],
        "bytes": [visible(byte) for byte in single],
        "steps": [[m.rank, visible(m.left), visible(m.right), visible(m.left + m.right), m.at] for m in steps],
    }
    whole = tokenizer.vocab_size
    x = lambda symbols: 1000 * math.log(max(1.0, symbols / 256)) / math.log(max(257, whole) / 256)
    y = lambda length: 100 * (1 - length / len(single))
    points, length = [(0.0, y(len(single)))], len(single)
    for one in steps:
        points += [(x(one.rank), y(length)), (x(one.rank + 1), y(len(one.ids)))]
        length = len(one.ids)
    points.append((1000.0, y(length)))
    sizes = [256, *(n for n in (1000, 10_000, 100_000) if n < 0.6 * whole), whole]
    return Story(
        sentence,
        data["bytes"],
        steps,
        [visible(tokenizer.token_bytes(id)) for id in ids],
        json.dumps(data, separators=(",", ":")),
        " ".join(f"{a:.1f},{b:.1f}" for a, b in points),
        [(x(n) / 10, count(n)) for n in sizes],
    )


def rates_of(samples: dict[str, str], readings: list[Reading]) -> list[tuple[str, list[Rate | None]]]:
    """[(name of the sample, rate of each tokenizer)], in the order of the samples; None for a vocabulary of characters
    that lacks some of the sample's."""
    tokenizers = [one.tokenizer for one in readings]
    tokens = {
        name: [len(one.encode(text)) if has_tokens(text, one) else 0 for one in tokenizers]
        for name, text in samples.items()
    }
    bytes_of = {name: len(text.encode()) for name, text in samples.items()}
    best = max((bytes_of[name] / n for name, counts in tokens.items() for n in counts if n), default=1)
    first = tokens[next(iter(samples))]
    return [
        (name, [
            Rate(bytes_of[name] / n, n, 100 * bytes_of[name] / n / best, n / first[i] if first[i] else None)
            if n else None for i, n in enumerate(counts)
        ])
        for name, counts in tokens.items()
    ]  # fmt: skip


def lists_of(tokenizer: Tokenizer, corpus: Corpus | None) -> dict:
    """Extremes of the vocabulary: [(visible token, title, count)] of the longest, rarest and unused tokens."""

    def entry(id: int, times: int | None = None) -> tuple[str, str, int | None]:
        data = tokenizer.token_bytes(id)
        return short(visible(data)), title_of(id, data), times

    lists: dict[str, object] = {
        "longest": [entry(id) for id in longest(tokenizer, EXAMPLES // 2, has_letter)],
        "blank": [entry(id) for id in longest(tokenizer, 6, lambda token: not has_letter(token))],
    }
    if corpus:
        usage, unused = corpus.usage, never_used(corpus.usage, tokenizer)
        spread = [unused[i] for i in sorted({len(unused) * i // EXAMPLES for i in range(EXAMPLES)})] if unused else []
        lists |= {
            "rarest": [entry(id, int(usage.counts[id])) for id in rarest(usage, tokenizer, EXAMPLES)],
            "unused": [entry(id) for id in spread],
            "unused_count": len(unused),
        }
    return lists


def title_of(id: int, data: bytes) -> str:
    """Id and bytes of a token in words: "token 262 · 2 bytes: 20 74"."""
    shown = data[:40].hex(" ") + (" …" if len(data) > 40 else "")
    return f"token {id:,} · {len(data)} byte{'s' if len(data) != 1 else ''}: {shown}"


def marked(data: bytes):
    """Text of a token as HTML: spaces and line breaks are marked, but kept, so that lines wrap."""
    from markupsafe import Markup, escape

    text = str(escape(visible(data)))
    return Markup(text.replace("␣", "<i> </i>").replace("⏎", "<b>⏎</b>\n"))


def render(readings: list[Reading], corpora: list[Corpus], back: str = "") -> str:
    """Return the HTML of the page, self-contained: it loads nothing, and its policy allows no scripts except its own.

    `corpora` has one entry per reading, or is empty; `back` is the URL of the run's report, "" if there is none.
    """
    languages = rates_of(LANGUAGES, readings)
    return fill(
        HERE / "look.html",
        style=(HERE / "look.css").read_text(encoding="utf-8"),
        script=(HERE / "look.js").read_text(encoding="utf-8"),
        readings=readings,
        corpora=corpora,
        back=back,
        texts=[[(marked(p.bytes), title_of(p.id, p.bytes)) for p in one.pieces[:SHOWN]] for one in readings],
        stories=[story_of(one) for one in readings],
        languages=sorted(languages, key=lambda row: row[1][0].tokens if row[1][0] else math.inf),
        kinds=rates_of(KINDS, readings),
        lists=[lists_of(one.tokenizer, corpora[i] if corpora else None) for i, one in enumerate(readings)],
        sentence=SENTENCE,
        shown=SHOWN,
    )


def render_run(run: FinishedRun, documents: Path, back: str) -> str:
    """Page of a run's tokenizer, with the longest excerpt of a kept document and the usage in some documents."""
    text = max((plain(example.excerpt) for example in run.funnel.kept), key=len, default="") or DEFAULT_TEXT
    there = any(documents.glob("*.parquet"))
    corpora = [read_corpus(documents, run.tokenizer, RUN_DOCUMENTS, RUN_CHARACTERS)] if there else []
    return render([read_with(run.name, run.tokenizer, known(text, run.tokenizer))], corpora, back)


def write_page(path: Path, readings: list[Reading], corpora: list[Corpus]) -> Path:
    """Write the page. Raises InputError if the file cannot be written."""
    html = render(readings, corpora)
    try:
        write_atomically(path, html)
    except OSError as error:
        raise InputError(
            f"--html {path} cannot be written: {error.strerror}. Give a file in a folder that is there."
        ) from None
    return path
