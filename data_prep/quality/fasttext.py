"""Filter by a fastText classifier (Joulin et al. 2017, arXiv:1607.01759): DCLM's, FineWeb-2's, or your own model."""

import functools
from dataclasses import dataclass

from data_prep.config.filters import Filter, Rule, Signal
from data_prep.fasttext_file import load_fasttext
from data_prep.text.passage import Passage
from lm.errors import UsageError
from lm.fields import measured, not_hashed, within
from lm.storage import as_local_file, digest, place_of

PREFIX = "__label__"
DIGITS = 6
"""Decimals of a score: hides differences in the last bits between machines."""


@dataclass(frozen=True)
class FastTextFilter(Filter):
    """Drop texts by the probability that a fastText model gives one of its labels."""

    min_score: float
    """Minimum score; texts below it are dropped."""
    model: str = measured()
    """The model, a .bin or .ftz: a path, or a URL (s3://, gs://, hf://, https://), downloaded once to the cache."""
    label: str = measured()
    """Label whose probability is the score, without "__label__"."""
    keep_share: float = 1.0
    """Share of documents to keep, those with the highest scores, of the documents that pass all rules; above 0, at most
    1. It raises min_score to the score that this share reaches; documents with that score are all kept."""
    max_score: float = 1.0
    """Maximum score; texts above it are dropped. To drop texts by an unwanted label, set this, and min_score 0."""
    sha256: str = not_hashed(default="")
    """SHA-256 of the model's file. Required, since fastText does not check files; if empty, the error prints it."""
    newlines: str = measured(default=" ")
    """Replacement for line breaks, because fastText reads one line. datatrove's default is "", which joins words."""

    name = "fasttext"
    title = "fastText classifier"
    summary = "A classifier, published or your own, scores each text (Joulin et al. 2017, arXiv:1607.01759)."
    signals = (Signal("fasttext_score", "Score", "The model's probability of the label, from 0 to 1."),)
    rules = (
        Rule("fasttext_low_score", "fasttext_score", "below", "min_score"),
        Rule("fasttext_high_score", "fasttext_score", "above", "max_score"),
    )

    def check_values(self):
        within(self, self.path(), 0, 1, "min_score", "max_score")
        within(self, self.path(), 0, 1, "keep_share", above=True)
        if self.min_score > self.max_score:
            raise UsageError(
                f"{self.path()}.min_score = {self.min_score} is above max_score = {self.max_score}, so nothing could "
                "pass. Lower the first or raise the second."
            )
        if not self.model or not self.label or self.label.startswith(PREFIX):
            raise UsageError(
                f"{self.path()}: model = {self.model!r}, label = {self.label!r}. Give the model's file, and the label "
                f"without {PREFIX}."
            )

    def external_inputs(self) -> dict[str, object]:
        load_model(self.model, self.label, self.sha256)  # fail before any work if the label is missing
        return {self.model: digest(as_local_file(place_of(self.model)))[1]}

    def measure(self, passage: Passage) -> list[float]:
        line = passage.text.strip().replace("\n", self.newlines)
        labels, scores = load_model(self.model, self.label, self.sha256).predict(line, k=-1)
        found = dict(zip(labels, scores, strict=True)).get(f"{PREFIX}{self.label}", 0.0)
        return [min(round(float(found), DIGITS), 1.0)]


@functools.lru_cache(maxsize=4)
def load_model(model: str, label: str, sha256: str = ""):
    """Load the fastText model at a path or URL, once per process. Raises InputError if it cannot be used or its SHA-256
    is not `sha256`, UsageError if it does not have the label."""
    loaded = load_fasttext(
        as_local_file(place_of(model)), sha256, "documents.fasttext.model", "documents.fasttext.sha256"
    )
    labels = [one.removeprefix(PREFIX) for one in loaded.predict("a", k=-1, threshold=-1.0)[0]]
    if label not in labels:
        some = ", ".join(labels[:20]) + (", …" if len(labels) > 20 else "")
        raise UsageError(f"documents.fasttext.label is {label!r}, but {model} has {some}. Choose one of these.")
    return loaded
