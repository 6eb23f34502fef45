"""Results of a ladder: its measurements, the fitted law, its predictions for the held-out rungs, and N and D for a
budget; as JSON and as text. Does not import JAX."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lm.errors import UsageError
from lm.scaling.ladder import Rung
from lm.scaling.law import Fit, Interval, Measurement, fit
from lm.terminal import counted

FAR = 100
"""A budget of more than this many times the FLOPs of the largest rung makes the recommendation a guess."""
AS_GOOD_AS_NEW = 4
"""Epochs up to which repeated text is about as good as new text (arXiv:2305.16264)."""
CONSTANTS = {
    "E": "irreducible loss", "A": "of parameters", "a": "exponent of parameters", "B": "of tokens",
    "b": "exponent of tokens",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A trained rung and its held-out loss."""

    rung: Rung
    loss: float

    @property
    def flops(self) -> float:
        """Training FLOPs, approximately 6 N D."""
        return 6.0 * self.rung.parameters * self.rung.tokens


@dataclass(frozen=True)
class Study:
    """Results of a ladder: measured rungs, the law fitted to them, a budget. `failed`: rungs without a loss."""

    fitted: tuple[Measured, ...]
    held_out: tuple[Measured, ...]
    failed: tuple[tuple[Rung, str], ...]
    fit: Fit
    budget: float
    """FLOPs to spend."""
    corpus_tokens: int
    """Tokens of one pass over the training text."""

    @property
    def parameters(self) -> Interval:
        """Compute-optimal number of parameters N* for the budget."""
        return self.fit.interval(lambda law: law.optimum(self.budget)[0])

    @property
    def tokens(self) -> Interval:
        """Compute-optimal number of training tokens D* for the budget."""
        return self.fit.interval(lambda law: law.optimum(self.budget)[1])

    @property
    def loss(self) -> Interval:
        """Predicted loss of the compute-optimal model (N*, D*)."""
        return self.fit.interval(lambda law: law.loss(*law.optimum(self.budget)))

    @property
    def beyond(self) -> float:
        """Budget divided by the FLOPs of the largest measured rung."""
        return self.budget / max(one.flops for one in (*self.fitted, *self.held_out))

    def prediction(self, one: Measured) -> Interval:
        return self.fit.prediction(one.rung.parameters, one.rung.tokens)

    def error(self, one: Measured) -> float:
        """Return the relative error of the law's prediction: (prediction - measurement) / measurement."""
        return self.fit.law.loss(one.rung.parameters, one.rung.tokens) / one.loss - 1

    def remarks(self) -> list[str]:
        """Return caveats about the results, such as constants that the measurements do not determine."""
        remarks = []
        if self.fit.at_bounds:
            names = " and ".join(self.fit.at_bounds)
            remarks.append(
                f"These rungs do not determine {names}: the best fit is at the edge of the search range. Predictions "
                "near the rungs may still hold; to determine the constants, add sizes and lengths that differ more."
            )
        if self.beyond > FAR:
            remarks.append(
                f"The budget is {self.beyond:,.0f} times the arithmetic of the largest rung. At that distance N* and "
                "D* are a guess; their interval covers the noise of the measurements, not the error of the law."
            )
        if (epochs := self.tokens.value / self.corpus_tokens) > 1:
            remarks.append(
                f"D* is {epochs:,.1f} times the {counted(self.corpus_tokens, 'token')} of this corpus"
                + (", and text repeated so often helps less" if epochs > AS_GOOD_AS_NEW else "")
                + ". The law holds for text that is read once: add text."
            )
        if not self.held_out:
            remarks.append("No larger rung was measured, so the error of predictions is unknown.")
        return remarks

    def as_json(self) -> dict[str, Any]:
        """Return the contents of scaling.json."""
        interval = lambda found: dict(zip(("value", "low", "high"), found, strict=True))
        rows = [(one, False) for one in self.fitted] + [(one, True) for one in self.held_out]
        return {
            "law": "loss = E + A / parameters^a + B / tokens^b",
            "loss": "nats a token, of held-out text",
            "parameters": "parameters in matrix products (without embedding tables)",
            "rungs": [row(one, held_out) | {"predicted": interval(self.prediction(one)), "error": self.error(one)}
                      for one, held_out in rows],
            "failed": [{"name": rung.name, "why": why} for rung, why in self.failed],
            "fit": {name: interval(self.fit.interval(lambda law, name=name: getattr(law, name))) for name in CONSTANTS},
            "not_determined": list(self.fit.at_bounds),
            "interval": "90 % interval, by a bootstrap of the residuals",
            "draws": [dataclasses.asdict(law) for law in self.fit.draws],
            "budget": {
                "flops": self.budget, "parameters": interval(self.parameters), "tokens": interval(self.tokens),
                "loss": interval(self.loss), "times_the_largest_rung": self.beyond,
            },
            "corpus_tokens": self.corpus_tokens,
            "remarks": self.remarks(),
        }  # fmt: skip


def row(one: Measured, held_out: bool) -> dict[str, Any]:
    """Return the entry of a measured rung in scaling.json."""
    rung = one.rung
    return {
        "name": rung.name, "held_out": held_out, "parameters": rung.parameters, "tokens": rung.tokens,
        "flops": one.flops, "layers": rung.model.layers, "width": rung.model.width, "heads": rung.model.heads,
        "steps": rung.train.steps, "batch_size": rung.train.batch_size, "learning_rate": rung.learning_rate,
        "seed": rung.train.seed, "loss": one.loss,
    }  # fmt: skip


def study(measured: Sequence[Measured], failed: Sequence[tuple[Rung, str]], budget: float, corpus_tokens: int) -> Study:
    """Fit the law to the rungs that are not held out, and return the results. Raises UsageError if the law cannot be
    fitted; the message also lists the rungs that failed."""
    fitted = tuple(one for one in measured if not one.rung.held_out)
    held_out = tuple(one for one in measured if one.rung.held_out)
    try:
        found = fit([Measurement(one.rung.parameters, one.rung.tokens, one.loss) for one in fitted])
    except UsageError as error:
        lost = "".join(f"\n{rung.name} failed: {why}" for rung, why in failed)
        raise UsageError(f"{error}{lost}") from error
    return Study(fitted, held_out, tuple(failed), found, budget, corpus_tokens)


def short(value: float) -> str:
    """Format a number with three digits and a unit: 1234567 as "1.23M", 2e18 as "2e+18"."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= value < 1e15:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def within(found: Interval) -> str:
    return f"{short(found.value)} ({short(found.low)} to {short(found.high)})"


def study_text(study: Study) -> str:
    """Format the results for the terminal."""
    lines = [f"{'N':>8} {'D':>8} {'loss':>7} {'law':>7} {'error':>8}  rung"]
    for one in (*study.fitted, *study.held_out):
        rung = one.rung
        lines.append(
            f"{short(rung.parameters):>8} {short(rung.tokens):>8} {one.loss:7.4f} {study.prediction(one).value:7.4f} "
            f"{100 * study.error(one):+7.2f} %  {rung.name}{' (held out)' if rung.held_out else ''}"
        )
    lines += [f"failed: {rung.name}: {why}" for rung, why in study.failed]
    lines += ["", "loss = E + A / N^a + B / D^b, with 90 % of a bootstrap:"]
    for name, meaning in CONSTANTS.items():
        found = study.fit.interval(lambda law, name=name: getattr(law, name))
        lines.append(f"  {name} = {found.value:.4g} ({found.low:.4g} to {found.high:.4g}), {meaning}")
    most = max(one.rung.parameters for one in study.fitted)
    for one in study.held_out:
        predicted = study.prediction(one)
        lines.append(
            f"held out, {one.rung.parameters / most:.1f} times the parameters of the largest that was fitted: "
            f"predicted {predicted.value:.4f} ({predicted.low:.4f} to {predicted.high:.4f}), measured {one.loss:.4f}: "
            f"{100 * study.error(one):+.2f} %"
        )
    lines.append(
        f"for {study.budget:.3g} FLOP: N* = {within(study.parameters)} parameters, D* = {within(study.tokens)} tokens, "
        f"loss {study.loss.value:.3f} ({study.loss.low:.3f} to {study.loss.high:.3f})"
    )
    return "\n".join(lines + study.remarks())
