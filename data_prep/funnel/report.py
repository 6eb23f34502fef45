"""The funnel for reports: counts with ordered names, and the texts of the examples."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.config import DocumentsConfig, PersonalDataConfig
from data_prep.funnel.counts import CLUSTER_BINS, GROUPS, TOP_DOMAINS, Counts, bin_edges, largest
from data_prep.parquet import column_of, opened, remedy
from data_prep.pii import replace_personal_data
from data_prep.sources.inputs import Records
from data_prep.verdict import Threshold, thresholds_of
from lm.errors import InputError
from lm.storage import Place, relative_name, write_atomically

FUNNEL = "funnel.json"
TOP_LANGUAGES = 12
EXCERPT_CHARACTERS = 900

Spot = tuple[int, int]
"""(number of the file in the joins, row)."""


@dataclass(frozen=True)
class Example:
    """One document as extracted, shortened to its beginning."""

    url: str
    excerpt: str
    """At most EXCERPT_CHARACTERS characters, with personal data replaced; empty if the document had no text."""
    text_bytes: int
    language: str
    language_score: float
    values: dict[str, float | None]
    """{signal: value} for the rules in use."""


@dataclass(frozen=True)
class Reason:
    """All documents dropped for one reason."""

    stage: str
    reason: str
    documents: int
    text_bytes: int
    threshold: Threshold | None
    """None if the reason is not a threshold on a number."""
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class FunnelStage:
    stage: str
    entered: int
    """Documents that entered the stage."""
    dropped: int
    dropped_bytes: int


@dataclass(frozen=True)
class Tally:
    """Documents, and UTF-8 bytes of their extracted texts, for one domain, language or reason."""

    name: str
    documents: int
    text_bytes: int


@dataclass(frozen=True)
class LanguageFunnel:
    """Kept and dropped texts of one language."""

    language: str
    documents: int
    """Number of texts, including dropped ones."""
    kept: int
    kept_bytes: int
    """UTF-8 bytes of the kept texts as extracted."""
    dropped: tuple[Tally, ...]
    """Dropped texts by "stage/reason", most frequent first."""


@dataclass(frozen=True)
class LengthBin:
    """Number of kept documents with `low` <= bytes < `high`."""

    low: int
    high: int
    documents: int


@dataclass(frozen=True)
class ClusterBin:
    """Kept documents from clusters with `low` <= documents < `high`; `high` is None for no upper bound."""

    low: int
    high: int | None
    kept: int
    documents: int
    """Sum of the cluster sizes over the kept documents."""


@dataclass(frozen=True)
class ValueBin:
    """Number of documents with `low` <= value < `high`."""

    low: float
    high: float
    kept: int
    dropped: int
    """Dropped by a threshold on this signal."""
    elsewhere: int


@dataclass(frozen=True)
class Distribution:
    """Histogram of one signal, with its thresholds."""

    signal: str
    thresholds: tuple[Threshold, ...]
    bins: tuple[ValueBin, ...]
    """Nonempty bins, in order."""
    near: tuple[tuple[Example, ...], ...]
    """For each threshold, the kept documents nearest to it."""


@dataclass(frozen=True)
class Duplicate:
    """A dropped document, and the kept one of its cluster."""

    dropped: Example
    stayed: Example


@dataclass(frozen=True)
class Funnel:
    """Counts from pages read to documents kept."""

    records: Records
    """Records seen in the input files: pages_read plus the skipped ones."""
    pages_read: int
    documents_kept: int
    extracted_bytes: int
    """UTF-8 bytes of all texts as extracted."""
    clean_text_bytes: int
    """UTF-8 bytes of the kept documents as written."""
    replaced: dict[str, int]
    """{kind of personal data: number of replacements in kept documents}."""
    stages: tuple[FunnelStage, ...]
    """In the order of the pipeline, without stages that dropped nothing."""
    reasons: tuple[Reason, ...]
    """In the order of the stages, then most frequent first."""
    kept: tuple[Example, ...]
    duplicates: tuple[Duplicate, ...]
    distributions: tuple[Distribution, ...]
    """In the order of the rules."""
    languages: tuple[Tally, ...]
    """Languages of all documents with a detected language, including dropped ones; most frequent first, at most
    TOP_LANGUAGES."""
    by_language: tuple["LanguageFunnel", ...]
    """Languages with their own thresholds, most frequent first."""
    domains: tuple[Tally, ...]
    """Hosts of kept documents, largest by bytes first; at most TOP_DOMAINS."""
    lengths: tuple[LengthBin, ...]
    """Bins of doubling width, from the shortest to the longest kept document, without gaps."""
    clusters: tuple[ClusterBin, ...] = ()
    """Nonempty bins by cluster size; empty if cluster sizes were not recorded."""


class Excerpts:
    """Reads selected rows of texts/, opening each file once."""

    def __init__(self, texts: Path, files: Mapping[int, str], signals: list[str], personal_data: PersonalDataConfig):
        self.texts, self.files, self.personal_data = texts, files, personal_data
        self.signals = list(dict.fromkeys(signals))
        self.wanted: dict[int, set[int]] = defaultdict(set)
        self.found: dict[Spot, Example] = {}

    def want(self, places: Iterable[Spot]) -> None:
        for file, row in places:
            self.wanted[file].add(row)

    def read(self) -> None:
        """Read all selected rows. Raises InputError if a file is missing, damaged, or shorter than when it was
        counted."""
        columns = ["url", "text", "text_bytes", "language", "language_score", *self.signals]
        for file, rows in sorted(self.wanted.items()):
            path = self.texts / self.files[file]
            for number, row in rows_at(path, sorted(rows), list(dict.fromkeys(columns))):
                self.found[file, number] = self.example(row)
            if missing := [row for row in sorted(rows) if (file, row) not in self.found]:
                raise InputError(
                    f"{path} has no row {missing[0]}: it has changed since it was counted. {remedy(path)}, then "
                    "launch.prepare_documents"
                )

    def example(self, row: dict[str, Any]) -> Example:
        # Replace in a longer text than is shown: an address cut in half would not be recognized.
        text, _ = replace_personal_data((row["text"] or "")[: 2 * EXCERPT_CHARACTERS], self.personal_data)
        return Example(
            url=row["url"] or "",
            excerpt=text[:EXCERPT_CHARACTERS],
            text_bytes=row["text_bytes"],
            language=row["language"] or "",
            language_score=row["language_score"] or 0.0,
            values={signal: row[signal] for signal in self.signals},
        )

    def at(self, places: Iterable[tuple[float, int, int]]) -> tuple[Example, ...]:
        return tuple(self.found[file, row] for _, file, row in places)


def rows_at(place: Place, rows: list[int], columns: list[str]) -> Iterator[tuple[int, dict]]:
    """Yield (number, row) for the ascending row numbers `rows`, skipping numbers that the file does not have. Raises
    InputError like `opened`."""
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
    min_quality: float | None = None,
) -> None:
    """Write the counts with the data needed to interpret them.

    `files` is {number of a file in the counts: its name in texts/}; `min_quality` is the threshold of the quality
    classifier, if used.
    """
    funnel = {
        "files": dict(sorted(files.items(), key=lambda one: one[1])),
        "thresholds": [
            {name: value for name, value in dataclasses.asdict(one).items() if value != {}}  # omit empty by_language
            for one in thresholds_of(config, min_quality)
        ],
        "languages_kept": config.language.languages,
        "records": dataclasses.asdict(records),
        "keep_share": config.quality_classifier.keep_share if "quality_classifier" in config.steps else None,
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
    keep_share: float | None
    """Share of documents that the quality classifier keeps, from which its threshold was computed; None if it was not
    used."""
    counts: Counts


def read_counts(path: Path) -> Written:
    """Read funnel.json. Raises InputError if it is missing or damaged."""
    try:
        written = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
        thresholds = [Threshold(**one) for one in written["thresholds"]]
        records = Records(**written["records"])
        rest = (written[name] for name in ("keep_share", "counts"))
        files = {int(number): relative_name(name, path) for number, name in written["files"].items()}
        return Written(files, thresholds, tuple(written["languages_kept"]), records, *rest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Delete it, and run: python -m "
            "launch.prepare_documents"
        ) from error


def read_funnel(path: Path, texts: Path, config: DocumentsConfig) -> Funnel:
    """Read the funnel of a run from its funnel.json and texts/.

    `config` gives the order of the stages and the replacement of personal data. Raises InputError if a file is missing
    or damaged.
    """
    written = read_counts(path)
    counts, thresholds = written.counts, written.thresholds
    excerpts = Excerpts(texts, written.files, [one.signal for one in thresholds], config.personal_data)
    for kind in ("examples", "near"):
        for places in counts[kind].values():
            excerpts.want((file, row) for _, file, row in places)
    excerpts.want(place for pair in counts["pairs"] for place in ((pair[1], pair[2]), (pair[3], pair[4])))
    excerpts.read()
    reasons = reasons_of(counts, thresholds, excerpts, config)
    lengths = {int(exponent): documents for exponent, documents in counts["lengths"].items()}
    exponents = range(min(lengths), max(lengths) + 1) if lengths else ()
    clusters, ends = counts.get("cluster_sizes", {}), dict(zip(CLUSTER_BINS, [*CLUSTER_BINS[1:], None], strict=True))
    return Funnel(
        records=written.records,
        pages_read=counts["rows"],
        documents_kept=counts["kept"][0],
        extracted_bytes=counts["kept"][1] + sum(reason.text_bytes for reason in reasons),
        clean_text_bytes=counts["clean_text_bytes"],
        replaced=counts["replaced"],
        stages=funnel_stages(reasons, counts["rows"]),
        reasons=reasons,
        kept=excerpts.at(counts["examples"].get("kept", [])),
        duplicates=tuple(
            Duplicate(*excerpts.at([(order, file, row), (order, stayed_file, stayed_row)]))
            for order, file, row, stayed_file, stayed_row in counts["pairs"]
        ),
        distributions=distributions_of(counts, thresholds, excerpts),
        languages=tallies(counts["languages"], lambda pair: pair[0], TOP_LANGUAGES),
        by_language=language_funnels(counts.get("by_language", {}), config),
        domains=tallies(counts["domains"], lambda pair: pair[1], TOP_DOMAINS),
        lengths=tuple(LengthBin(2**e, 2 ** (e + 1), lengths.get(e, 0)) for e in exponents),
        clusters=tuple(ClusterBin(low, ends[low], *clusters[str(low)]) for low in sorted(map(int, clusters))),
    )


def reasons_of(
    counts: Counts, thresholds: list[Threshold], excerpts: Excerpts, config: DocumentsConfig
) -> tuple[Reason, ...]:
    by_name = {(one.stage, one.reason): one for one in thresholds}
    named = [(*name.split("/", 1), *pair) for name, pair in counts["reasons"].items()]
    return tuple(
        Reason(
            stage,
            reason,
            documents,
            text_bytes,
            by_name.get((stage, reason)),
            excerpts.at(counts["examples"].get(f"{stage}/{reason}", [])),
        )
        for stage, reason, documents, text_bytes in sorted(
            named, key=lambda item: (config.stage_order(item[0]), -item[2], item[1])
        )
    )


def distributions_of(counts: Counts, thresholds: list[Threshold], excerpts: Excerpts) -> tuple[Distribution, ...]:
    found = []
    for signal in dict.fromkeys(one.signal for one in thresholds):
        groups = counts["values"].get(signal, {})
        numbers = sorted({int(number) for group in groups.values() for number in group})
        bins = tuple(
            ValueBin(*bin_edges(signal, number), *(groups[group].get(str(number), 0) for group in GROUPS))
            for number in numbers
        )
        mine = tuple(one for one in thresholds if one.signal == signal)
        near = tuple(excerpts.at(counts["near"].get(f"{one.stage}/{one.reason}", [])) for one in mine)
        found.append(Distribution(signal, mine, bins, near))
    return tuple(found)


def by_language_told(funnel: Path, config: DocumentsConfig) -> list[str]:
    """Return a line for the terminal for each language with its own thresholds. Raises InputError like
    `read_counts`."""
    if config.by_language is None:
        return []
    found = language_funnels(read_counts(funnel).counts.get("by_language", {}), config)
    return [
        f"  {one.language}: {one.kept:,} of {one.documents:,} texts"
        + "".join(f", {tally.name.partition('/')[2]} {tally.documents:,}" for tally in one.dropped[:3])
        for one in found
    ]


def language_funnels(counts: dict[str, dict[str, list[int]]], config: DocumentsConfig) -> tuple[LanguageFunnel, ...]:
    """Return the funnels of the languages that the config keeps, from the key `by_language` of counts."""
    found = []
    for label, reasons in counts.items():
        if label in config.language.languages:
            dropped = {name: pair for name, pair in reasons.items() if name != "kept"}
            documents = sum(pair[0] for pair in reasons.values())
            tallied = tallies(dropped, lambda pair: pair[0], len(dropped))
            found.append(LanguageFunnel(label, documents, *reasons.get("kept", [0, 0]), tallied))
    return tuple(sorted(found, key=lambda one: (-one.documents, one.language)))


def tallies(pairs: dict[str, list[int]], by: Callable[[list[int]], int], limit: int) -> tuple[Tally, ...]:
    """Return the `limit` largest names; ties are sorted alphabetically."""
    names = sorted(pairs, key=lambda name: (-by(pairs[name]), name))[:limit]
    return tuple(Tally(name, *pairs[name]) for name in names)


def funnel_stages(reasons: tuple[Reason, ...], pages_read: int) -> tuple[FunnelStage, ...]:
    """Count documents entering and dropped at each stage. `reasons` is in the order of the stages."""
    dropped: dict[str, list[int]] = {}
    for reason in reasons:
        pair = dropped.setdefault(reason.stage, [0, 0])
        pair[0] += reason.documents
        pair[1] += reason.text_bytes
    stages, entered = [], pages_read
    for stage, (count, size) in dropped.items():
        stages.append(FunnelStage(stage, entered, count, size))
        entered -= count
    return tuple(stages)
