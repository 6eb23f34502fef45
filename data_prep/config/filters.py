"""What a filter is: one object with its knobs, what it measures of a text, what it drops, and the words for it.

A filter of your own is a class like those in data_prep/quality/, and one line in the recipe (docs/contracts.md).
"""

import dataclasses
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from lm.errors import UsageError
from lm.fields import Config

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from data_prep.text.passage import Passage

COLUMNS_TAKEN = frozenset(
    (
        "text", "id", "dump", "url", "date", "file_path", "language", "language_script", "token_count", "stage",
        "reason", "text_bytes", "duplicate_of", "cluster_size", "repeat",
    )
)  # fmt: skip
"""Of texts/, documents/ and dropped/, beside the signals."""
SHARE_STEP = 0.005
"""Width of the bins in which shares are counted."""
Side = Literal["below", "at most", "above", "at least"]
WITH_LIMIT: dict[Side, Side] = {"below": "at most", "at most": "at most", "above": "at least", "at least": "at least"}
"""The side with the limit itself."""
COMPARE = {"below": operator.lt, "at most": operator.le, "above": operator.gt, "at least": operator.ge}


@dataclass(frozen=True, slots=True)
class Signal:
    """A number that is measured of every text once, and stored, so that thresholds can be moved afterwards."""

    name: str
    """Of the column that holds it."""
    title: str
    """What it is, in a few words, for the report."""
    sentence: str
    """The same in a sentence, for a reader who has never met it."""
    bins: Literal["whole", "doubling"] | float = SHARE_STEP
    """How its distribution is counted: by whole numbers; by whole numbers whose bins grow with the value; or in bins of
    this width."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Drops the texts whose signal lies on the wrong side of a limit. Without a value (NaN), nothing is dropped."""

    reason: str
    """The stable name under which what it drops is counted."""
    signal: str
    """The number that it looks at."""
    drops: "Side"
    """Of what is dropped, where it lies."""
    option: str = ""
    """The field of the filter that holds the limit; "" where the limit is fixed, and no threshold to be moved."""
    place: int | None = None
    """The limit's place in the field, where that is a tuple."""
    limit_falls: str = ""
    """A field of the filter that says whether a value at the limit is dropped too; "" where `drops` alone says it."""
    fixed: float = 0.0
    """The limit, where it is no field."""
    sentence: str = ""
    """What the reason means, where the limit is no field; else the signal's sentence and the limit say it."""
    datatrove: str = ""
    """What datatrove 0.10 calls the reason, so that funnels can be compared; "" where it has no such name."""

    def limit(self, config: "Filter") -> float:
        if not self.option:
            return self.fixed
        value = getattr(config, self.option)
        return value if self.place is None else value[self.place]

    def side(self, config: "Filter") -> "Side":
        """Of what is dropped, where it lies, as `config` has it."""
        return WITH_LIMIT[self.drops] if self.limit_falls and getattr(config, self.limit_falls) else self.drops


def breaks(values: "np.ndarray", drops: str, limit: "float | np.ndarray") -> "np.ndarray":
    """(rows,) bool: which of `values`, (rows,) float64, lie on the side of `limit`, one of all or one a row, that is
    dropped; NaN never does."""
    return COMPARE[drops](values, limit)


@dataclass(frozen=True)
class Filter(Config):
    """Base of all filters: its fields are the knobs, its class attributes say what it does with them.

    A field marked `measured` (lm/fields.py) decides a signal's value, any other is a threshold.
    """

    name: ClassVar[str] = ""
    """Of the step, of its section in the config, and of the stage under which its reasons are counted."""
    title: ClassVar[str]
    """The same for people."""
    summary: ClassVar[str]
    """What it is for, in a sentence or two."""
    signals: ClassVar[tuple[Signal, ...]] = ()
    """What `measure` gives, in this order."""
    rules: ClassVar[tuple[Rule, ...]] = ()
    """In the order in which they are applied."""
    other_reasons: ClassVar[tuple[tuple[str, str], ...]] = ()
    """(reason, what it means) of `other_checks`."""
    rewrites: ClassVar[bool] = False
    """Whether `rewrite` takes anything out of texts."""

    @classmethod
    def path(cls) -> str:
        """Its section in the config."""
        return f"documents.{cls.name}"

    def external_inputs(self) -> dict[str, object]:
        """{name: SHA-256} of the files that it reads, such as a model: they decide its values as its fields do. Asked
        once, before the work: raises InputError or UsageError where one cannot be used."""
        return {}

    def measure(self, passage: "Passage") -> list[float]:
        """The values of `signals` of a text that is not empty: a pure function of it and of the `measured` fields."""
        raise NotImplementedError(f"{type(self).__name__} has signals, and so needs measure().")

    def rewrite(self, passage: "Passage") -> "Passage":
        """What the filters behind this one see, and what is kept, where this one is used: see `rewrites`."""
        return passage

    def left_of(self, passage: "Passage") -> "Passage":
        """What `rewrite` leaves of it, worked out once."""
        if self not in passage.rewritten:
            passage.rewritten[self] = self.rewrite(passage)
            passage.rewritten[self].words_of = passage.words_of
        return passage.rewritten[self]

    def other_checks(self, rows: "pa.RecordBatch | pa.Table") -> Iterator[tuple[str, "np.ndarray"]]:
        """(reason, (rows,) bool) of what is dropped for more than one number, after `rules`; by columns of texts/."""
        yield from ()


KNOWN: dict[str, type[Filter]] = {}
"""{name: class} of the filters of every config that was made in this process: where the counts find a signal's bins,
and the report the words for what a run has used."""


def find_signal(name: str) -> Signal | None:
    """The signal of that name, of whichever filter it is."""
    return next((one for kind in KNOWN.values() for one in kind.signals if one.name == name), None)


def check_filters(kinds: tuple[type[Filter], ...], names_taken: set[str]) -> None:
    """Raises UsageError unless each filter is whole, and no two share a name, a signal or a reason."""
    names: set[str] = set(names_taken)
    signals: set[str] = set(COLUMNS_TAKEN)
    reasons: set[str] = set()
    for kind in kinds:
        columns = [signal.name for signal in kind.signals]
        own_reasons = [*(rule.reason for rule in kind.rules), *(reason for reason, _ in kind.other_reasons)]
        for what, used, found in (
            ("name", names, [kind.name]),
            ("signal", signals, columns),
            ("reason", reasons, own_reasons),
        ):
            if bad := [one for one in found if one in used or found.count(one) > 1 or not one.isidentifier()]:
                raise UsageError(
                    f"The filter {kind.__name__} has the {what} {bad[0]!r}, which is taken already, or is no name as "
                    "Python's are. Give it another."
                )
            used.update(found)
        fields = {field.name for field in dataclasses.fields(kind)}
        for rule in kind.rules:
            if rule.signal not in columns:
                raise UsageError(
                    f"{kind.__name__}: the rule {rule.reason} looks at {rule.signal!r}, which is no signal of this "
                    f"filter. It has {', '.join(columns) or 'none'}."
                )
            if missing := {rule.option, rule.limit_falls} - {"", *fields}:
                raise UsageError(
                    f"{kind.__name__}: the rule {rule.reason} asks the field {missing.pop()!r}, which is not there. It "
                    f"has {', '.join(sorted(fields)) or 'none'}."
                )
