"""Searchable documents in the report: examples of kept documents and of every reason, with their values.

They are the positions stored in funnel.json: random samples of each reason and of kept documents, and the kept
documents closest to each threshold. So their number does not depend on the size of the run, and covers all reasons.
"""

import json
from dataclasses import dataclass

from data_prep.funnel.report import Example, Funnel
from data_prep.verdict import Threshold
from viewer.explanations import signal_words, stage_name
from viewer.formats import value

EXCERPT, BEGINNING = 600, 160
"""Maximum characters of each document, and of its line in the list."""


@dataclass(frozen=True)
class ListedDocument:
    """One document of the list."""

    kept: bool
    name: str
    """"stage/reason" that dropped it, or "kept"."""
    stage: str
    reason: str
    example: Example
    decided: str
    """Measured value and the threshold that it violates: "words: 27, below 50"; "" if no number decided."""
    values: str
    """JSON: measured values for each of Listing.thresholds, null if not measured."""

    @property
    def excerpt(self) -> str:
        return self.example.excerpt[:EXCERPT]

    @property
    def beginning(self) -> str:
        """First line for the list."""
        return " ".join(self.excerpt[:BEGINNING].split())


@dataclass(frozen=True)
class Listing:
    """All listed documents."""

    documents: tuple[ListedDocument, ...]
    """Dropped documents in the order of the stages, then kept ones, without duplicates."""
    thresholds: str
    """JSON, one list per threshold: [signal in words, dropped side, value, formatted value, "stage/reason"]."""
    reasons: tuple[tuple[str, str, int], ...]
    """("stage/reason", name of the stage, number of listed documents) of each reason."""

    @property
    def kept(self) -> int:
        return sum(one.kept for one in self.documents)


def thresholds_in_order(funnel: Funnel) -> tuple[Threshold, ...]:
    """All thresholds of a run, grouped by signal."""
    return tuple(one for distribution in funnel.distributions for one in distribution.thresholds)


def signal_name(signal: str) -> str:
    return signal_words(signal)[0]


def listing_of(funnel: Funnel) -> Listing:
    """Build the list from a run's funnel; deterministic."""
    thresholds = [
        one for one in thresholds_in_order(funnel) if not one.by_language
    ]  # only thresholds that are the same for all languages

    def listed(example: Example, stage: str = "", reason: str = "", line: Threshold | None = None) -> ListedDocument:
        measured = example.values.get(line.signal) if line else None
        decided = ""
        if line and measured is not None:
            decided = f"{signal_name(line.signal)}: {value(measured)}, {line.drops} {value(line.value)}"
        numbers = [example.values.get(one.signal) for one in thresholds]
        values = json.dumps([None if v is None else float(f"{v:.6g}") for v in numbers], separators=(",", ":"))
        name = f"{stage}/{reason}" if stage else "kept"
        return ListedDocument(not stage, name, stage, reason, example, decided, values)

    dropped = [
        listed(example, reason.stage, reason.reason, reason.threshold)
        for reason in funnel.reasons
        for example in reason.examples
    ]
    near = [example for one in funnel.distributions for examples in one.near for example in examples]
    kept = {(one.url, one.excerpt): listed(one) for one in (*funnel.kept, *near)}
    lines = [[signal_name(t.signal), t.drops, t.value, value(t.value), f"{t.stage}/{t.reason}"] for t in thresholds]
    return Listing(
        documents=(*dropped, *kept.values()),
        thresholds=json.dumps(lines, separators=(",", ":")),
        reasons=tuple(
            (f"{one.stage}/{one.reason}", stage_name(one.stage), len(one.examples)) for one in funnel.reasons
        ),
    )
