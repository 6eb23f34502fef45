"""Base class of filters: a filter declares its options, the signals it measures, its rules and their descriptions.

To add your own filter, write a class like those in data_prep/quality/ and add it to the recipe
(docs/how_to_change_it.md).
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
"""Columns of texts/, documents/ and dropped/ that are not signals."""
SHARE_STEP = 0.005
"""Bin width in histograms of shares."""
Side = Literal["below", "at most", "above", "at least"]
WITH_LIMIT: dict[Side, Side] = {"below": "at most", "at most": "at most", "above": "at least", "at least": "at least"}
"""{side: the same side including the limit}."""
COMPARE = {"below": operator.lt, "at most": operator.le, "above": operator.gt, "at least": operator.ge}


@dataclass(frozen=True, slots=True)
class Signal:
    """A number measured once for every text and stored, so thresholds can be changed later."""

    name: str
    """Name of its column."""
    title: str
    """Short title in the report."""
    sentence: str
    """One-sentence explanation for readers new to it."""
    bins: Literal["whole", "doubling"] | float = SHARE_STEP
    """Histogram bins: "whole" for one per integer, "doubling" for bins that widen with the value, or the width of all
    bins."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Drop texts whose signal is on the wrong side of a limit. Texts without a value (NaN) pass."""

    reason: str
    """Stable name of the reason, for counts."""
    signal: str
    """Name of the signal to compare."""
    drops: "Side"
    """Side of the limit that is dropped."""
    option: str = ""
    """Field of the filter with the limit; "": the limit is `fixed`."""
    place: int | None = None
    """Index of the limit in that field, if it is a tuple."""
    limit_falls: str = ""
    """Field of the filter that decides whether to drop values equal to the limit too; "": `drops` decides."""
    fixed: float = 0.0
    """The limit, if no field sets it."""
    sentence: str = ""
    """Meaning of the reason if the limit is fixed; otherwise the signal and its limit explain it."""
    datatrove: str = ""
    """datatrove 0.10's name of the reason, to compare funnels; "" if it has none."""

    def limit(self, config: "Filter") -> float:
        if not self.option:
            return self.fixed
        value = getattr(config, self.option)
        return value if self.place is None else value[self.place]

    def side(self, config: "Filter") -> "Side":
        """Return the side of the limit on which texts are dropped, according to `config`."""
        return WITH_LIMIT[self.drops] if self.limit_falls and getattr(config, self.limit_falls) else self.drops


def breaks(values: "float | np.ndarray", drops: str, limit: "float | np.ndarray") -> "np.ndarray":
    """Return (rows,) bool, True for rows to drop: those whose `values`, a scalar or (rows,) float64, are on the side
    `drops` (such as "above") of `limit`, a scalar or one per row. NaN is never dropped."""
    return COMPARE[drops](values, limit)


@dataclass(frozen=True)
class Filter(Config):
    """Base class of filters. Fields are the options; class attributes describe the filter. A field marked `measured`
    (lm/fields.py) determines the values of signals, the numbers measured for each text; all others are thresholds."""

    name: ClassVar[str] = ""
    """Name of the step, its config section, and its stage in the counts."""
    title: ClassVar[str]
    """Title for reports."""
    summary: ClassVar[str]
    """Purpose in one or two sentences."""
    signals: ClassVar[tuple[Signal, ...]] = ()
    """Signals that `measure` returns, in this order."""
    rules: ClassVar[tuple[Rule, ...]] = ()
    """Rules in order of application."""
    other_reasons: ClassVar[tuple[tuple[str, str], ...]] = ()
    """(reason, meaning) of everything that `other_checks` drops."""
    rewrites: ClassVar[bool] = False
    """Whether `rewrite` can remove parts of texts."""

    @classmethod
    def path(cls) -> str:
        """Return the path of its section in the config, "documents.NAME"."""
        return f"documents.{cls.name}"

    def external_inputs(self) -> dict[str, object]:
        """Return {name: SHA-256} of the files that the filter reads, such as a model, and that determine its values.
        Called once, before the work. Raises InputError or UsageError if a file cannot be used."""
        return {}

    def measure(self, passage: "Passage") -> list[float]:
        """Return the values of `signals` for a non-empty text. They may depend only on the text and `measured`
        fields."""
        raise NotImplementedError(f"{type(self).__name__} has signals, so it needs measure().")

    def rewrite(self, passage: "Passage") -> "Passage":
        """Return the part of the text to keep if this filter is used. Called only if `rewrites` is True."""
        return passage

    def left_of(self, passage: "Passage") -> "Passage":
        """Return the result of `rewrite`, which is cached in `passage`."""
        if self not in passage.rewritten:
            passage.rewritten[self] = self.rewrite(passage)
            passage.rewritten[self].words_of = passage.words_of
        return passage.rewritten[self]

    def other_checks(self, rows: "pa.RecordBatch | pa.Table") -> Iterator[tuple[str, "np.ndarray"]]:
        """Yield (reason, which rows to drop as (rows,) bool) for each check that needs several columns of texts/. These
        checks come after `rules`."""
        yield from ()


KNOWN: dict[str, type[Filter]] = {}
"""{name: class} of the filters of all configs made in this process, for the bins of histograms and the report."""


def find_signal(name: str) -> Signal | None:
    """Return the signal with that name of any filter in KNOWN; None if there is none."""
    return next((one for kind in KNOWN.values() for one in kind.signals if one.name == name), None)


def check_filters(kinds: tuple[type[Filter], ...], names_taken: set[str]) -> None:
    """Raise UsageError unless each filter is complete, and no two share a name, a signal or a reason."""
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
                    f"The filter {kind.__name__} has the {what} {bad[0]!r}, which is already taken or not a Python "
                    "name. Rename it."
                )
            used.update(found)
        fields = {field.name for field in dataclasses.fields(kind)}
        for rule in kind.rules:
            if rule.signal not in columns:
                raise UsageError(
                    f"{kind.__name__}: the rule {rule.reason} uses {rule.signal!r}, which is not a signal of this "
                    f"filter. Its signals: {', '.join(columns) or 'none'}."
                )
            if missing := {rule.option, rule.limit_falls} - {"", *fields}:
                raise UsageError(
                    f"{kind.__name__}: the rule {rule.reason} uses the field {missing.pop()!r}, which the filter does "
                    f"not have. Its fields: {', '.join(sorted(fields)) or 'none'}."
                )
