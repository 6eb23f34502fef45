"""Rungs of a ladder: small models with the proportions of the config's model, how each is trained, and the options that
select them. Only counting parameters imports JAX.

- Shape: layers, heads and the MLP's width have the same proportion to the width as in the config's model, heads have
  the same number of channels, and the width is a multiple of 8. There are at least two layers, since one layer cannot
  copy what followed an earlier occurrence (induction heads, arXiv:2209.11895). Vocabulary, context and the other fields
  are the config's.
- N counts the parameters in matrix products: all except lookup tables. So 6 N D is the number of FLOPs, as the law
  assumes, and small models lie on one curve with large ones (arXiv:2406.12907 on counting embeddings).
- Batch: the config's. Steps: as many as the tokens need. Schedule: the config's, over the rung's own steps
  (arXiv:2203.15556, section 3: a schedule that ends elsewhere gives a higher loss), with at most a tenth for warmup.
- Learning rate: with Muon the config's, since the size of its updates does not depend on the width, and tables need the
  same rate at any width too (arXiv:2203.03466, table 3); without Muon the config's times its width / the rung's, as
  matrices need with Adam (there, and arXiv:2407.05872 on the standard parametrization).
"""

import bisect
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lm.config import ModelConfig, StartConfig, TrainConfig
from lm.data.records import Split
from lm.errors import UsageError
from lm.model.cost import parameters_in_products

MULTIPLE = 8
"""Widths are multiples of this."""
HELD_OUT_TOKENS = 2**17
"""Minimum held-out tokens that a rung's loss is measured on (or train.validation_batches, if more; or all, if fewer
exist)."""


@dataclass(frozen=True)
class Rung:
    """One training run of a scaling ladder: a model and its training config."""

    parameters: int
    """N: parameters in matrix products."""
    model: ModelConfig
    train: TrainConfig
    held_out: bool
    """Whether its loss tests the prediction and is not used for the fit."""

    @property
    def tokens(self) -> int:
        """D: number of training tokens."""
        return self.train.stages(self.model.context_length).tokens_before(self.train.steps)

    @property
    def name(self) -> str:
        """Name of the rung's run folder, such as "width64-layers4-steps100-seed0"; the same for identical training."""
        model, train = self.model, self.train
        return f"width{model.width}-layers{model.layers}-steps{train.steps}-seed{train.seed}"

    @property
    def learning_rate(self) -> float:
        return self.train.optimizer.learning_rate


@dataclass(frozen=True)
class LadderConfig:
    """Models and training lengths of a ladder. Empty fields get defaults from the config of the model to predict."""

    rungs: tuple[float, ...] = ()
    """Parameters of each fitted model, e.g. 1e6 2e6 4e6; by default 1/32, 1/16, 1/8 and 1/4 of the config's model."""
    tokens: tuple[float, ...] = ()
    """Training tokens of each fitted model; by default 1/8, 1/4, 1/2 and all of the config's."""
    held_out: tuple[float, ...] = ()
    """Parameters of the models that test the prediction; by default 4 times the largest fitted model."""
    held_out_tokens: tuple[float, ...] = ()
    """Training tokens of the models that test the prediction; by default the largest of --tokens."""
    seeds: int = 1
    """Runs of each rung, with seeds counting up from the config's."""
    budget: float = 0.0
    """FLOPs to recommend parameters and tokens for, such as 1e18."""
    epochs: float = 1.0
    """Maximum passes of a rung over the corpus. Repeated text is worth less than new text, the more so the larger the
    model (arXiv:2305.16264), which the law does not model."""

    def __post_init__(self):
        for name in ("rungs", "tokens", "held_out", "held_out_tokens"):
            if bad := [one for one in getattr(self, name) if not 1 <= one < 1e18]:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} has {bad[0]:g}; give numbers from 1 up, such as --{option} 1e6 2e6 4e6.")
        if not 1 <= self.seeds <= 100:
            raise UsageError(f"--seeds is {self.seeds}; the number of runs per rung must be from 1 to 100.")
        if not 0 < self.epochs <= 1000:
            raise UsageError(f"--epochs is {self.epochs:g}; it must be above 0, and at most 1000, as in --epochs 2.")

    def check(self, train: TrainConfig) -> None:
        """Raise UsageError if there is no budget, or if `train` has a mixture, or a schedule of batch size, context or
        mixture."""
        if not 1 <= self.budget < 1e40:
            raise UsageError(f"--budget is {self.budget:g}; give the FLOP to spend, such as --budget 1e18.")
        for name in ("batch_schedule", "context_schedule", "mixture_schedule"):
            if getattr(train, name):
                raise UsageError(
                    f"train.{name} is set, but its steps count for the whole run, and rungs have other numbers of "
                    f"steps. Remove it: --train.{name.replace('_', '-')} without a value."
                )
        if train.mixture:
            folders = ", ".join(source.tokens for source in train.mixture)
            raise UsageError(
                f"train.mixture has {folders}, but a ladder uses one corpus, the run's own. Remove the mixture, or "
                "write one set of shards from all sources."
            )


def make_ladder(model: ModelConfig, train: TrainConfig, config: LadderConfig) -> list[Rung]:
    """Return the rungs of a ladder for `model`: first the rungs to fit, then the held-out rungs, both by rising cost.
    Imports JAX. Raises UsageError if two rungs are identical."""
    whole, whole_tokens = size_of(model), train.stages(model.context_length).tokens_before(train.steps)
    rungs = config.rungs or tuple(whole / part for part in (32, 16, 8, 4))
    tokens = config.tokens or tuple(whole_tokens / part for part in (8, 4, 2, 1))
    held_out = config.held_out or (4 * max(rungs),)
    held_out_tokens = config.held_out_tokens or (max(tokens),)
    made: list[Rung] = []
    for sizes, lengths, apart in ((rungs, tokens, False), (held_out, held_out_tokens, True)):
        shapes = distinct(sizes, lambda size: shape_of(model, size), "parameters", "--held-out" if apart else "--rungs")
        wanted = "--held-out-tokens" if apart else "--tokens"
        steps_of = lambda length: max(2, round(length / (train.batch_size * model.context_length)))
        lengths = distinct(lengths, steps_of, "tokens", wanted)
        made += [
            Rung(size_of(shape), shape, trained(train, model.width / shape.width, steps, seed), apart)
            for shape in shapes for steps in lengths for seed in range(train.seed, train.seed + config.seeds)
        ]  # fmt: skip
    names = [rung.name for rung in made]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(
            f"{twice[0]} is both in --rungs and in --held-out. Give --held-out models that are larger, such as "
            f"{4 * max(rungs):.3g}, 4 times the largest of --rungs."
        )
    return sorted(made, key=lambda rung: (rung.held_out, rung.parameters * rung.tokens, rung.name))


def distinct[Made](sizes: Iterable[float], make: Callable[[float], Made], unit: str, option: str) -> list[Made]:
    """Return [make(size) for size in sizes]. Raises UsageError, with `unit` and `option`, if two are equal."""
    found: dict[Made, float] = {}
    for size in sizes:
        made = make(size)
        if made in found:
            raise UsageError(
                f"{option}: {found[made]:g} and {size:g} {unit} make the same rung. Leave one out, or give numbers "
                "that are further apart."
            )
        found[made] = size
    return list(found)


def shape_of(model: ModelConfig, parameters: float) -> ModelConfig:
    """Return the model with the proportions of `model` whose size (`size_of`) is nearest to `parameters`, by ratio."""
    count = lambda units: size_of(at_width(model, MULTIPLE * units))
    high = 1
    while count(high) < parameters:
        high *= 2
    high = bisect.bisect_left(range(high), parameters, lo=high // 2 + 1, key=count)
    nearer_low = high > 1 and parameters / count(high - 1) < count(high) / parameters
    return at_width(model, MULTIPLE * (high - nearer_low))


@functools.cache
def size_of(model: ModelConfig) -> int:
    """Return N, the number of parameters in matrix products. Layers are scanned if possible, for faster tracing."""
    return parameters_in_products(dataclasses.replace(model, scan_layers=model.layers_alike))


def at_width(model: ModelConfig, width: int) -> ModelConfig:
    """Return `model` scaled to a width, with the same proportions (see the module's docstring)."""
    share = width / model.width
    heads = max(1, round(model.heads * share))
    group = min(heads, model.heads // model.kv_heads)
    kv_heads = max(1, round(heads / group))
    return dataclasses.replace(
        model,
        width=width,
        layers=max(min(2, model.layers), round(model.layers * share)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=model.head_channels,
        mlp_width=MULTIPLE * max(1, round(model.mlp_width * share / MULTIPLE)),
    )


def trained(train: TrainConfig, narrower: float, steps: int, seed: int) -> TrainConfig:
    """Return the training config of a rung. `narrower`: width of the config's model divided by the rung's width."""
    optimizer = train.optimizer
    scale = 1.0 if optimizer.muon else narrower
    decay = max(1, round(optimizer.decay_steps * steps / train.steps)) if optimizer.decay_steps else 0
    return dataclasses.replace(
        train,
        steps=steps,
        seed=seed,
        optimizer=dataclasses.replace(
            optimizer,
            learning_rate=optimizer.learning_rate * scale,
            final_learning_rate=optimizer.final_learning_rate * scale,
            warmup_steps=min(optimizer.warmup_steps, steps // 10),
            decay_steps=decay,
        ),
        validate_every=steps,
        evaluators=("validation",),
        sample_every=0,
        checkpoints_kept=1,
        checkpoints_kept_every=0,
        checkpoints_kept_best=0,
        patience=0,
        snapshot_steps=(),
        profile_step=0,
        start=StartConfig(),
        layout="",  # the row is for a model of another size
    )


def refuse_repetition(ladder: Sequence[Rung], corpus_tokens: int, epochs: float) -> None:
    """Raise UsageError for a rung that would read the corpus more than `epochs` times."""
    longest = max(ladder, key=lambda rung: rung.tokens)
    if longest.tokens > epochs * corpus_tokens:
        raise UsageError(
            f"{longest.name} needs {longest.tokens:,} tokens, but the corpus has {corpus_tokens:,}, and --epochs is "
            f"{epochs:g}. Lower --tokens{' and --held-out-tokens' if longest.held_out else ''}, add text, or repeat "
            f"the text: --epochs {longest.tokens / corpus_tokens + 0.05:.1f}"
        )


def windows_in(split: Split, context_length: int) -> int:
    """Return the number of windows of `context_length` tokens in a split (lm/data/batches.py)."""
    return sum(-(-(shard.tokens - 1) // context_length) for shard in split.shards if shard.records)


def measured_on(rung: Rung, windows: int) -> Rung:
    """Return the rung with train.validation_batches raised to HELD_OUT_TOKENS tokens, or to all `windows` windows of
    the held-out text if these are fewer tokens."""
    train, context = rung.train, rung.model.context_length
    available = -(-windows // train.batch_size)
    wanted = max(train.validation_batches, -(-HELD_OUT_TOKENS // (train.batch_size * context)))
    return dataclasses.replace(rung, train=dataclasses.replace(train, validation_batches=min(wanted, available)))
