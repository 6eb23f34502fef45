"""The funnel for reports: counts with ordered names, and the texts of the examples."""

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data_prep.config import DocumentsConfig
from data_prep.funnel.counts import TOP_DOMAINS, Counts, largest
from data_prep.parquet import column_of, opened, remedy
from data_prep.pii import replace_personal_data
from data_prep.sources.inputs import Records
from data_prep.verdict import Threshold, thresholds_of
from lm.errors import MALFORMED, InputError, shown
from lm.storage import Place, relative_name, write_atomically

FUNNEL = "funnel.json"
TOP_LANGUAGES = 12
EXCERPT_CHARACTERS = 900
MOST_RULES, EXAMPLES_PER_RULE = 3, 3
"""Number of rules, and of examples of each, that are printed if most pages are dropped."""
FEW_PAGES = 10_000
"""Number of pages below which the config for small collections is recommended."""

Spot = tuple[int, int]
"""(number of the file, row) of a document of texts/."""


@dataclass(frozen=True)
class Example:
    """A document to show in the report: the beginning of its extracted text, and its measured values."""

    url: str
    excerpt: str
    """At most EXCERPT_CHARACTERS characters, with personal data replaced; empty if the document had no text."""
    text_bytes: int
    """UTF-8 bytes of the whole extracted text."""
    language: str
    language_score: float
    """Probability of `language`, 0 to 1."""
    values: dict[str, float | None]
    """{signal: value} for the rules in use."""


@dataclass(frozen=True)
class Tally:
    """Number of documents with one domain, language or reason, and the UTF-8 bytes of their extracted texts
    (`text_bytes`)."""

    name: str
    documents: int
    text_bytes: int


@dataclass(frozen=True)
class LanguageFunnel:
    """Number of kept and dropped texts of one language."""

    language: str
    documents: int
    """Number of texts, including dropped ones."""
    kept: int
    kept_bytes: int
    """UTF-8 bytes of the kept texts as extracted."""
    dropped: tuple[Tally, ...]
    """Dropped texts by "stage/reason", most frequent first."""


def rows_at(place: Place, rows: list[int], columns: list[str]) -> Iterator[tuple[int, dict]]:
    """Yield (row number, row) of a Parquet file for the ascending row numbers `rows`. Those beyond its end are skipped.
    Raises InputError like `opened`."""
    with opened(place) as file:
        first = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            here = [row for row in rows if first <= row < first + size]
            if here:
                places = column_of([row - first for row in here], pa.int64())
                yield from zip(here, file.read_row_group(group, columns).take(places).to_pylist(), strict=True)
            first += size


def write_funnel(
    path: Place,
    counts: Counts,
    files: Mapping[int, str],
    records: Records,
    config: DocumentsConfig,
) -> None:
    """Write funnel.json to `path`: the counts, and the thresholds, languages and numbers of records that explain them.
    `files` is {number of a file in the counts: its name in texts/}."""
    funnel = {
        "files": dict(sorted(files.items(), key=lambda one: one[1])),
        "thresholds": [
            {name: value for name, value in dataclasses.asdict(one).items() if value != {}}  # omit empty by_language
            for one in thresholds_of(config)
        ],
        "languages_kept": config.language.languages,
        "records": dataclasses.asdict(records),
        "counts": counts | {"domains": largest(counts["domains"], TOP_DOMAINS)},
    }
    write_atomically(path, json.dumps(funnel, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Written:
    files: dict[int, str]
    """{number of a file in the counts: its name in texts/}."""
    thresholds: list[Threshold]
    languages_kept: tuple[str, ...]
    """Languages that the config keeps; () for all."""
    records: Records
    counts: Counts


def read_counts(path: Path) -> Written:
    """Return the contents of the funnel.json at `path`. Raises InputError if it is missing or damaged."""
    try:
        written = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
        thresholds = [Threshold(**one) for one in written["thresholds"]]
        records = Records(**written["records"])
        files = {int(number): relative_name(name, path) for number, name in written["files"].items()}
        return Written(files, thresholds, tuple(written["languages_kept"]), records, written["counts"])
    except (OSError, *MALFORMED) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Delete it, and run: python -m "
            "launch.prepare_documents"
        ) from error


def read_examples(
    written: Written, texts: Path, config: DocumentsConfig
) -> tuple[dict[str, tuple[Example, ...]], dict[str, tuple[Example, ...]]]:
    """Read from texts/ the documents that funnel.json lists as examples. Return ({"kept" or "stage/reason": examples},
    {"stage/reason" of a rule: kept documents nearest to its threshold}). Raises InputError if a file is missing,
    damaged, or shorter than when it was counted."""
    signals = list(dict.fromkeys(one.signal for one in written.thresholds))
    columns = list(dict.fromkeys(["url", "text", "text_bytes", "language", "language_score", *signals]))
    kinds = written.counts["examples"], written.counts["near"]
    wanted: dict[int, set[int]] = defaultdict(set)
    for _, file, row in itertools.chain.from_iterable(places for kind in kinds for places in kind.values()):
        wanted[file].add(row)
    found: dict[Spot, Example] = {}
    for file, rows in sorted(wanted.items()):
        path = texts / written.files[file]
        for number, row in rows_at(path, sorted(rows), columns):
            # Replace in a longer text than is shown: an address cut in half would not be recognized.
            text, _ = replace_personal_data((row["text"] or "")[: 2 * EXCERPT_CHARACTERS], config.personal_data)
            found[file, number] = Example(
                url=row["url"] or "",
                excerpt=text[:EXCERPT_CHARACTERS],
                text_bytes=row["text_bytes"],
                language=row["language"] or "",
                language_score=row["language_score"] or 0.0,
                values={signal: row[signal] for signal in signals},
            )
        if missing := [row for row in sorted(rows) if (file, row) not in found]:
            raise InputError(
                f"{path} has no row {missing[0]}: it has changed since it was counted. {remedy(path)}, then "
                "launch.prepare_documents"
            )
    examples, near = (
        {name: tuple(found[file, row] for _, file, row in places) for name, places in kind.items()} for kind in kinds
    )
    return examples, near


def drop_lines(texts: Place, counts: Counts, files: Mapping[int, str], config: DocumentsConfig) -> list[str]:
    """Return lines for the terminal if most documents were dropped: the rules that dropped the most, each with its
    setting and examples. The arguments are as for `write_funnel`. Raises InputError if a file in `texts` is damaged."""
    total, kept = counts["rows"], counts["kept"][0]
    if 2 * kept > total or not counts["reasons"]:
        return []
    limits = {f"{one.stage}/{one.reason}": one for one in thresholds_of(config)}
    lines = [f"{total - kept:,} of {total:,} pages are dropped, most of them by these rules:"]
    for one in tallies(counts["reasons"], lambda pair: pair[0], MOST_RULES):
        stage, limit = one.name.partition("/")[0], limits.get(one.name)
        setting = f"change documents.{stage}" if hasattr(config, stage) else f"remove {stage} from documents.steps"
        setting = "correct the files" if stage == "read" else setting
        setting = f"change {limit.option}, now {limit.value:g}" if limit else setting
        examples = []
        for _, file, row in counts["examples"].get(one.name, [])[:EXAMPLES_PER_RULE]:
            columns = ["url", "id", *([limit.signal] if limit else [])]
            for _, found in rows_at(texts / files[file], [row], columns):
                value = found[limit.signal] if limit else None
                name = shown(found["url"] or found["id"], quotes=False)
                examples.append(name if value is None else f"{name} ({value:.3g})")
        lines.append(f"  {one.name}: {one.documents:,} pages, such as {', '.join(examples)}; to keep them, {setting}")
    if total < FEW_PAGES:
        lines.append("  These rules are for large crawls. configs/own_text.py keeps all pages of a small one.")
    return lines


def language_lines(funnel: Path, config: DocumentsConfig) -> list[str]:
    """Return a line for the terminal on each language with its own thresholds: how many texts were kept, and the main
    reasons for dropping. `funnel` is the path of funnel.json. Raises InputError like `read_counts`."""
    if config.by_language is None:
        return []
    found = language_funnels(read_counts(funnel).counts.get("by_language", {}), config)
    return [
        f"  {one.language}: {one.kept:,} of {one.documents:,} texts"
        + "".join(f", {tally.name.partition('/')[2]} {tally.documents:,}" for tally in one.dropped[:3])
        for one in found
    ]


def language_funnels(counts: dict[str, dict[str, list[int]]], config: DocumentsConfig) -> tuple[LanguageFunnel, ...]:
    """Return the kept and dropped texts of each language that the config keeps, largest first. `counts` is the key
    `by_language` of counts (`empty_counts`)."""
    found = []
    for label, reasons in counts.items():
        if label in config.language.languages:
            dropped = {name: pair for name, pair in reasons.items() if name != "kept"}
            documents = sum(pair[0] for pair in reasons.values())
            tallied = tallies(dropped, lambda pair: pair[0], len(dropped))
            found.append(LanguageFunnel(label, documents, *reasons.get("kept", [0, 0]), tallied))
    return tuple(sorted(found, key=lambda one: (-one.documents, one.language)))


def tallies(pairs: dict[str, list[int]], by: Callable[[list[int]], int], limit: int) -> tuple[Tally, ...]:
    """Return the `limit` largest names of {name: [documents, bytes]}, by the number that `by` returns for their pairs.
    Equal numbers are in alphabetical order of the names."""
    names = sorted(pairs, key=lambda name: (-by(pairs[name]), name))[:limit]
    return tuple(Tally(name, *pairs[name]) for name in names)
