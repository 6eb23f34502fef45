"""Counts of the funnel: pages read, pages dropped by stage and reason, and histograms of all signals.

Files are counted separately and their counts are added. Examples are stored as positions (file, row); report.py reads
their texts.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from data_prep.config.filters import SHARE_STEP, find_signal
from data_prep.verdict import Threshold, Verdict, row_limits

EXAMPLES = 10
"""Number of examples per reason, and of kept documents near the threshold of each rule."""
BINS_PER_OCTAVE = 8
"""Bins per factor of 2 for signals with "doubling" bins (data_prep/config/filters.py)."""
CLUSTER_BINS = (1, 2, 3, 4, 5, 10, 30, 100, 300, 1000)
"""Lower bounds of the bins of cluster sizes; the last bin has no upper bound."""
TOP_DOMAINS = 12
"""Number of hosts in funnel.json."""
COUNTED_DOMAINS = 2_000
"""Maximum number of hosts in counts: those with the most bytes. The largest hosts of a corpus are among the largest of
nearly every file, so their counts are at most slightly too low."""
MAX_PARTS = 100
"""Maximum number of counts, one per batch of rows, that are held in memory."""
GROUPS = ("kept", "dropped", "elsewhere")

Counts = dict[str, Any]
"""JSON counts of one or more files; see `empty_counts` for the keys."""


def empty_counts() -> Counts:
    """Return counts of zero; docs/contracts.md ("funnel.json") explains the keys. Two keys are optional: `by_language`
    is {"deu_Latn": {"stage/reason" or "kept": [documents, bytes]}}, and `cluster_sizes` is {lower bound in
    CLUSTER_BINS: [kept documents, documents of their clusters]}."""
    return {
        "rows": 0,
        "reasons": {},
        "kept": [0, 0],
        "clean_text_bytes": 0,
        "replaced": {},
        "languages": {},
        "domains": {},
        "lengths": {},
        "values": {},
        "examples": {},
        "near": {},
    }


def count_rows(
    columns: Mapping[str, list],
    values: Mapping[str, np.ndarray],
    verdicts: list[Verdict],
    place: tuple[int, int],
    thresholds: tuple[Threshold, ...],
    labels: np.ndarray | None = None,
) -> Counts:
    """Return the counts (`empty_counts`) of kept and dropped documents among consecutive rows of one file. `columns`
    has id, url, language and text_bytes. `values` has the signals of `thresholds`, (rows,) float64, NaN if missing.
    `place` is (number of the file, number of the first row). `labels`, (rows,) str, is the language of each row
    (`languages_of`)."""
    counts = empty_counts()
    counts["rows"] = len(verdicts)
    sizes = np.array(columns["text_bytes"], np.int64)
    numbers: dict[Verdict, int] = {None: 0}  # number of each verdict in `groups`
    groups = np.array([numbers.setdefault(verdict, len(numbers)) for verdict in verdicts], np.intp)
    kept = groups == 0
    orders = np.fromiter(map(order_of, columns["id"]), np.int64, len(verdicts))
    for verdict, number in numbers.items():
        rows = np.flatnonzero(groups == number)
        pair = [len(rows), int(sizes[rows].sum())]
        if verdict is None:
            counts["kept"] = pair
        else:
            counts["reasons"]["/".join(verdict)] = pair
        if len(rows):
            counts["examples"]["/".join(verdict or ("kept",))] = smallest(orders, rows, place)
    for language, url, size, verdict in zip(
        columns["language"], columns["url"], columns["text_bytes"], verdicts, strict=True
    ):
        if language:
            add_pair(counts["languages"], language, size)
        if verdict is None:
            add_pair(counts["domains"], host(url), size)
    exponents = np.frexp(np.maximum(sizes[kept], 1).astype(np.float64))[1] - 1
    counts["lengths"] = tally(exponents)
    for signal in dict.fromkeys(one.signal for one in thresholds):
        mine = [one for one in thresholds if one.signal == signal]
        by_it = np.isin(groups, [numbers.get((one.stage, one.reason), -1) for one in mine])
        bins = bins_of(signal, values[signal])
        counts["values"][signal] = {
            "kept": tally(bins[kept]), "dropped": tally(bins[by_it]), "elsewhere": tally(bins[~kept & ~by_it]),
        }  # fmt: skip
        for one in mine:
            distances = np.abs(values[signal] - row_limits(one.value, one.by_language, labels))
            rows = np.flatnonzero(kept & ~np.isnan(distances))
            counts["near"][f"{one.stage}/{one.reason}"] = smallest(distances, rows, place)
    if labels is not None:
        by_language = counts["by_language"] = {}
        for label, verdict, size in zip(labels.tolist(), verdicts, sizes.tolist(), strict=True):
            if label:
                add_pair(by_language.setdefault(label, {}), "/".join(verdict or ("kept",)), size)
    return ordered(counts)


def smallest(keys: np.ndarray, rows: np.ndarray, place: tuple[int, int]) -> list[list]:
    """Return the EXAMPLES of `rows` with the smallest keys as [[key, file, row], ...]; of equal keys, the first rows.
    `place` is (number of the file, number of the first row)."""
    file, first = place
    if len(rows) > EXAMPLES:  # the rest need not be sorted
        limit = np.partition(keys[rows], EXAMPLES - 1)[EXAMPLES - 1]
        rows = rows[keys[rows] <= limit]
    chosen = rows[np.argsort(keys[rows], kind="stable")[:EXAMPLES]]
    return [[key, file, first + row] for key, row in zip(keys[chosen].tolist(), chosen.tolist(), strict=True)]


def order_of(document_id: str) -> int:
    """Return a hash of a document's id. The documents with the smallest are the examples: a uniform sample that does
    not depend on the order of the files."""
    return int.from_bytes(hashlib.blake2b(document_id.encode("utf-8", "surrogatepass"), digest_size=6).digest())


def bins_kind(signal: str) -> Literal["whole", "doubling"] | float:
    """Return the kind of a signal's histogram bins, or their width; SHARE_STEP if the signal is unknown."""
    known = find_signal(signal)
    return known.bins if known else SHARE_STEP


def bins_of(signal: str, values: np.ndarray) -> np.ndarray:
    """Return the number of the histogram bin of each value of a signal, (rows,) float; NaN for NaN."""
    width = bins_kind(signal)
    if width == "whole":
        return np.floor(values)
    if width == "doubling":
        return np.where(values < 1, -1.0, np.floor(np.log2(np.maximum(values, 1)) * BINS_PER_OCTAVE) + 0 * values)
    return np.floor(values / width + 1e-9)


def bin_edges(signal: str, number: int) -> tuple[float, float]:
    """Return (low, high) of bin `number` in the histogram of a signal: it has the values low <= value < high."""
    width = bins_kind(signal)
    if width == "whole":
        return float(number), number + 1.0
    if width == "doubling":
        low, high = (math.ceil(2 ** (edge / BINS_PER_OCTAVE)) for edge in (number, number + 1))
        return (0.0, 1.0) if number < 0 else (float(low), float(max(high, low + 1)))
    return round(number * width, 9), round((number + 1) * width, 9)


def tally(bins: np.ndarray) -> dict[str, int]:
    """Return {bin number: number of values} from the bin number of each value; NaN is left out."""
    numbers, counts = np.unique(bins[~np.isnan(bins)], return_counts=True)
    return {str(int(number)): int(count) for number, count in zip(numbers, counts, strict=True)}


def cluster_bin(size: int) -> str:
    """Return the key in `cluster_sizes`, a key of counts (`empty_counts`), of clusters of `size` documents."""
    return str(max(begin for begin in CLUSTER_BINS if begin <= size))


def host(url: str | None) -> str:
    """Return the host of a URL without "www."; empty if there is none."""
    try:
        return (urlsplit(url or "").hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def largest(pairs: Mapping[str, list[int]], number: int) -> dict[str, list[int]]:
    """Return the `number` names with the most bytes, largest first, from {name: [documents, bytes]}."""
    return dict(sorted(pairs.items(), key=lambda one: (-one[1][1], one[0]))[:number])


def add_pair(pairs: dict[str, list[int]], name: str, size: int) -> None:
    pair = pairs.setdefault(name, [0, 0])
    pair[0] += 1
    pair[1] += size


def append_counts(parts: list[Counts], part: Counts) -> None:
    """Append `part` to `parts`. At MAX_PARTS, replace these by their sum, so that memory does not grow with the
    file."""
    parts.append(part)
    if len(parts) >= MAX_PARTS:
        parts[:] = [merge(parts)]


def add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Add the numbers, lists of numbers, and dicts of these in `part` to those in `total`."""
    for name, value in part.items():
        if isinstance(value, dict):
            add(total.setdefault(name, {}), value)
        elif isinstance(value, list):
            total[name] = [a + b for a, b in zip(total.get(name, [0] * len(value)), value, strict=True)]
        else:
            total[name] = total.get(name, 0) + value


def merge(parts: Iterable[Counts]) -> Counts:
    """Return the sum of counts, with only the COUNTED_DOMAINS largest hosts. The order of `parts` does not matter."""
    total = empty_counts()
    for part in parts:
        add(total, part | {"examples": {}, "near": {}})
        for key in ("examples", "near"):
            for name, places in part[key].items():
                total[key][name] = sorted([*total[key].get(name, []), *places])[:EXAMPLES]
    total["domains"] = largest(total["domains"], COUNTED_DOMAINS)
    return ordered(total)


def ordered(value: Any) -> Any:
    """Return `value` with the keys of all dicts in it sorted, so that equal counts are equal bytes."""
    return {key: ordered(value[key]) for key in sorted(value)} if isinstance(value, dict) else value
