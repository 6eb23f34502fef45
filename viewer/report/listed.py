"""The documents that can be searched in the report: examples of what was kept and of every reason, with their values.

They are the places that funnel.json names: of each reason, and of what was kept, some at random, and the kept ones
nearest to each threshold. So they are few, whatever the size of the run, and no reason is left out.
"""

import json
from dataclasses import dataclass

from data_prep.funnel.excerpts import Example
from data_prep.funnel.report import Funnel
from data_prep.verdict import Threshold
from viewer.explanations import signal_words, stage_name
from viewer.formats import value

EXCERPT, BEGINNING = 600, 160
"""Characters of each document at most, and of the line by which it is listed."""


@dataclass(frozen=True)
class ListedDocument:
    """One document of the list."""

    kept: bool
    name: str
    """"stage/reason" of what dropped it; "kept"."""
    stage: str
    reason: str
    example: Example
    decided: str
    """What was measured beside the line that it broke: "words: 27, below 50"; "" where no number decided."""
    values: str
    """JSON: what was measured for each of Listing.thresholds, null where nothing was."""

    @property
    def excerpt(self) -> str:
        return self.example.excerpt[:EXCERPT]

    @property
    def beginning(self) -> str:
        """A line of it."""
        return " ".join(self.excerpt[:BEGINNING].split())


@dataclass(frozen=True)
class Listing:
    """The list."""

    documents: tuple[ListedDocument, ...]
    """Dropped ones in the order of the stages, then kept ones; a document that is there for two lines stands once."""
    thresholds: str
    """JSON, a list a threshold: [signal in words, what is dropped, its value, the same as shown, "stage/reason"]."""
    reasons: tuple[tuple[str, str, int], ...]
    """("stage/reason", name of the stage, documents in the list) of each reason."""

    @property
    def kept(self) -> int:
        return sum(one.kept for one in self.documents)


def thresholds_in_order(funnel: Funnel) -> tuple[Threshold, ...]:
    """All thresholds of a run; those on one signal together."""
    return tuple(one for distribution in funnel.distributions for one in distribution.thresholds)


def signal_name(signal: str) -> str:
    return signal_words(signal)[0]


def listing_of(funnel: Funnel) -> Listing:
    """The list of a run's funnel; the same funnel gives the same list."""
    thresholds = [one for one in thresholds_in_order(funnel) if not one.by_language]  # what has one line for all

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
