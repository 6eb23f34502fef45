"""Rungs of a ladder: small models with the proportions of the config's model, and how each is trained.

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

import dataclasses
import functools
from collections.abc import Callable, Iterable

from lm.config import ModelConfig, OptimizerConfig, StartConfig, TrainConfig
from lm.errors import UsageError
from lm.model.cost import parameters_in_products
from lm.scaling.rungs import LadderConfig, Rung

MULTIPLE = 8
"""Widths are multiples of this."""


def make_ladder(model: ModelConfig, train: TrainConfig, config: LadderConfig) -> list[Rung]:
    """Build all rungs, fitted ones before held-out ones, cheapest first. Counting parameters imports JAX.

    Raises UsageError if two rungs are identical.
    """
    whole, whole_tokens = size_of(model), train.stages(model.context_length).tokens_before(train.steps)
    rungs = config.rungs or tuple(whole / part for part in (32, 16, 8, 4))
    tokens = config.tokens or tuple(whole_tokens / part for part in (8, 4, 2, 1))
    held_out = config.held_out or (4 * max(rungs),)
    held_out_tokens = config.held_out_tokens or (max(tokens),)
    made: list[Rung] = []
    for sizes, lengths, apart in ((rungs, tokens, False), (held_out, held_out_tokens, True)):
        shapes = distinct(sizes, lambda size: shape_of(model, size), "parameters", "--held-out" if apart else "--rungs")
        wanted = "--held-out-tokens" if apart else "--tokens"
        lengths = distinct(lengths, lambda length: steps_of(model, train, length), "tokens", wanted)
        made += [
            Rung(size_of(shape), shape, trained(train, model.width / shape.width, steps, seed), apart)
            for shape in shapes for steps in lengths for seed in range(train.seed, train.seed + config.seeds)
        ]  # fmt: skip
    names = [rung.name for rung in made]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(
            f"{twice[0]} is to be fitted and held out. Give --held-out models that are larger, such as "
            f"{4 * max(rungs):.3g}, 4 times the largest of --rungs."
        )
    return sorted(made, key=lambda rung: (rung.held_out, rung.parameters * rung.tokens, rung.name))


def distinct[Made](sizes: Iterable[float], make: Callable[[float], Made], unit: str, option: str) -> list[Made]:
    """Apply `make` to each size. Raises UsageError if two sizes give the same result."""
    found: dict[Made, float] = {}
    for size in sizes:
        made = make(size)
        if made in found:
            raise UsageError(
                f"{option}: {found[made]:g} and {size:g} {unit} make the same rung. Leave one out, or give numbers "
                "that lie further apart."
            )
        found[made] = size
    return list(found)


def shape_of(model: ModelConfig, parameters: float) -> ModelConfig:
    """Return the model with the proportions of `model` whose N has the smallest ratio to `parameters`."""
    count = lambda units: size_of(at_width(model, MULTIPLE * units))
    high = 1
    while count(high) < parameters:
        high *= 2
    low = high // 2  # 0 if the narrowest is large enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    nearer_low = low > 0 and parameters / count(low) < count(high) / parameters
    return at_width(model, MULTIPLE * (low if nearer_low else high))


@functools.cache
def size_of(model: ModelConfig) -> int:
    """N. Counted with scanned layers if possible, which traces only one layer and gives the same number."""
    return parameters_in_products(dataclasses.replace(model, scan_layers=model.layers_alike))


def at_width(model: ModelConfig, width: int) -> ModelConfig:
    """Scale `model` to a width, with the proportions described in the docstring of this module."""
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


def steps_of(model: ModelConfig, train: TrainConfig, tokens: float) -> int:
    return max(2, round(tokens / (train.batch_size * model.context_length)))


def trained(train: TrainConfig, narrower: float, steps: int, seed: int) -> TrainConfig:
    """TrainConfig of a rung that is `narrower` times as narrow as the config's model; validated only after its last
    step."""
    optimizer = train.optimizer
    scale = 1.0 if optimizer.muon else narrower
    decay = max(1, round(optimizer.decay_steps * steps / train.steps)) if optimizer.decay_steps else 0
    return dataclasses.replace(
        train,
        steps=steps,
        seed=seed,
        optimizer=rescaled(optimizer, scale, min(optimizer.warmup_steps, steps // 10), decay),
        validate_every=steps,
        evaluators=("validation",),
        sample_every=0,
        checkpoints_kept=1,
        checkpoints_kept_every=0,
        checkpoints_kept_best=0,
        snapshot_steps=(),
        profile_step=0,
        start=StartConfig(),
        layout="",  # the row is for a model of another size
    )


def rescaled(optimizer: OptimizerConfig, scale: float, warmup_steps: int, decay_steps: int) -> OptimizerConfig:
    return dataclasses.replace(
        optimizer,
        learning_rate=optimizer.learning_rate * scale,
        final_learning_rate=optimizer.final_learning_rate * scale,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
    )
