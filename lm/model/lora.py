"""Low-rank adapters of the linear maps within blocks (LoRA, arXiv:2106.09685).

Axes: B batch, T position; I and O inputs and outputs of a linear map, R rank. Stacked layers (model.scan_layers) have
stacked adapters, with an additional first axis.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import LoraConfig
from lm.errors import UsageError
from lm.model.arrays import LinearInputs, LinearOutputs
from lm.model.layers import Linear, linear, used
from lm.model.param_names import IN_BLOCK
from lm.model.transformer import Transformer
from lm.parallel import constrain

LORA = 2**32 - 3  # folded into the seed; distinct from the steps, dropout and rounding


class Adapter(nnx.Module):
    """scale * x @ A @ B, added to the output of a linear map. A and B are float32, also for bfloat16 weights."""

    def __init__(self, a: jax.Array, b: jax.Array, axes: tuple[str, str], scale: float):
        first = ("layers",) * (a.ndim - 2)
        self.a = nnx.Param(a, axes=(*first, axes[0], "rank"))
        self.b = nnx.Param(b, axes=(*first, "rank", axes[1]))
        self.axes, self.scale = axes, scale

    def __call__(self, x_BTI: LinearInputs) -> LinearOutputs:
        a_IR = constrain(self.a[...].astype(x_BTI.dtype), used(self.axes[0]), None)
        b_RO = constrain(self.b[...].astype(x_BTI.dtype), None, used(self.axes[1]))
        h_BTR = constrain(linear(x_BTI, a_IR, None), "batch", "length", None)
        return constrain(linear(self.scale * h_BTR, b_RO, None), "batch", "length", used(self.axes[1]))


type Adapters = dict[str, Adapter]
"""{name of a linear map, such as "blocks.0.attention.query": its adapter}."""


def block_maps(model: Transformer) -> dict[str, Linear]:
    """Return {name: linear map} of all blocks."""
    found = {".".join(map(str, path)): one for path, one in nnx.iter_modules(model) if isinstance(one, Linear)}
    return {name: one for name, one in found.items() if IN_BLOCK.fullmatch(name)}


def make_adapters(model: Transformer, config: LoraConfig, seed: int) -> Adapters:
    """Return an adapter for each linear map that `config` chooses: A from a uniform distribution within
    +-1 / sqrt(inputs), like peft's, and B of zeros. They do not depend on whether layers are stacked.

    Raises UsageError if the model has no linear map of a name in config.maps.
    """
    maps = block_maps(model)
    roles = sorted({IN_BLOCK.sub(r"\3", name) for name in maps})
    if unknown := sorted({*config.maps} - {*roles}):
        raise UsageError(f"train.lora.maps has {', '.join(unknown)}; this model has {', '.join(roles)}.")
    key, drawn, found = jax.random.fold_in(jax.random.key(seed), LORA), dict[str, jax.Array](), dict[str, Adapter]()
    for name, one in maps.items():
        layer, role = (IN_BLOCK.sub(part, name) for part in (r"\2", r"\3"))
        if config.maps and role not in config.maps:
            continue
        inputs, outputs = one.weight.shape[-2:]
        if role not in drawn:  # for all layers at once, which compiles faster
            shape, own, bound = (model.layers, inputs, config.rank), roles.index(role), inputs**-0.5
            drawn[role] = jax.random.uniform(jax.random.fold_in(key, own), shape, minval=-bound, maxval=bound)
        b, at = jnp.zeros((model.layers, config.rank, outputs)), int(layer) if layer else ...
        found[name] = Adapter(drawn[role][at], b[at], one.axes, config.alpha / config.rank)
    return found


def adapted(model: Transformer, adapters: Adapters) -> Transformer:
    """Return the model with adapters, which its linear maps then add."""
    model = jax.tree.map(lambda x: x, model)
    maps = block_maps(model)
    for name, adapter in adapters.items():
        maps[name].adapter = nnx.data(adapter)
    return model


def with_products(model: Transformer, adapters: Adapters) -> Transformer:
    """Return the model with W + scale * A @ B, computed in float32, as the weight W of each adapted map."""
    model = jax.tree.map(lambda x: x, model)
    maps = block_maps(model)
    for name, one in adapters.items():
        product = jnp.matmul(one.a[...], one.b[...], precision=jax.lax.Precision.HIGHEST)
        weight = maps[name].weight
        weight[...] = (weight[...].astype(jnp.float32) + one.scale * product).astype(weight.dtype)
    return model


def merged(model: Transformer, adapters: Adapters) -> Transformer:
    """Return `with_products`, sharded like `model`; a model of ShapeDtypeStructs is returned unchanged."""
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(model)):
        return model
    return jax.jit(with_products, out_shardings=jax.tree.map(lambda x: x.sharding, model))(model, adapters)
