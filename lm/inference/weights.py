"""Lay out the weights of a trained model for generation on one device.

Decoding a few rows reads every weight once per step and computes little, so its speed is limited by memory bandwidth if
weights are stored in the order in which they are read. bfloat16 has half, int8 a quarter of the bytes of float32.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lm.config import ModelConfig
from lm.errors import UsageError
from lm.inference.cpu import Bfloat16Linear, Int8Linear, JoinedAttention, PreparedLinear, TiledLinear
from lm.model.arrays import OutputTable, ResidualStream
from lm.model.attention.layer import Attention
from lm.model.block import Block
from lm.model.layers import MLP, Linear, softcapped
from lm.model.transformer import Transformer, with_blocks
from lm.parallel import context

type Weights = Literal["float32", "bfloat16", "int8"]


def for_inference(model: Transformer, config: ModelConfig, weights: Weights) -> Transformer:
    """Return the model with the weights of all linear maps, including the output projection, in type `weights`: float32
    unchanged, bfloat16 rounded, int8 with a float32 scale per output. Embeddings and norms stay as they are, and
    activations have config.compute_dtype. Layers are no longer stacked, whatever config.scan_layers is. Raises
    UsageError if the model is on several devices."""
    devices = {device for leaf in jax.tree.leaves(model) for device in jnp.asarray(leaf).devices()}
    if len(devices) > 1:
        raise UsageError(
            f"weights = {weights} work on one device only, and this model is on {len(devices)}. Use the model as "
            "it is, or restore it on one device."
        )
    prepared = with_blocks(model, [prepared_block(block, config, weights) for block in model.layer_blocks()])
    if not is_plain(weights):
        return PreparedTransformer(prepared, prepared_linear(np.asarray(model.output_table()).T, None, config, weights))
    if prepared.head is not None:
        prepared.head = rounded(prepared.head, weights)
    return prepared


class PreparedTransformer(Transformer):
    """`model` with the output projection replaced by `output`, even if it was tied to the embedding."""

    def __init__(self, model: Transformer, output: PreparedLinear):
        for name, value in vars(model).items():
            if not name.startswith("_pytree") and name != "head":
                setattr(self, name, value)
        self.output = output

    def output_table(self) -> OutputTable:
        return self.output.table()

    def logits(self, x_BTD: ResidualStream) -> Float[Array, "B T V"]:
        logits_NV = self.output.product(x_BTD.reshape(-1, x_BTD.shape[-1]))
        return softcapped(logits_NV, self.logit_softcap).reshape(*x_BTD.shape[:2], -1)


def is_plain(weights: Weights) -> bool:
    """Return whether linear maps keep their trained layout, as float32 and bfloat16 weights do on accelerators."""
    return context().target.platform != "cpu" and weights != "int8"


def prepared_block(block: Block, config: ModelConfig, weights: Weights) -> Block:
    """Return a copy of the block with the linear maps of its attention and MLP in the form for generation with
    `weights`. Parts of other classes, which only a user's block has, stay as they are."""
    block, plain = jax.tree.map(lambda x: x, block), is_plain(weights)
    for place, part in list(vars(block).items()):
        if not isinstance(part, Attention | MLP):
            continue
        if type(part) is Attention and not plain:
            three = [part.query, part.key, part.value]
            part = JoinedAttention(part, side_by_side(three, config, weights))
            setattr(block, place, part)
        for name, linear in list(vars(part).items()):
            if isinstance(linear, Linear):
                setattr(part, name, rounded(linear, weights) if plain else side_by_side([linear], config, weights))
    return block


def rounded(linear: Linear, weights: Weights) -> Linear:
    """Return a copy of a linear map with its weight in type `weights`."""
    linear = jax.tree.map(lambda x: x, linear)
    linear.weight = nnx.Param(linear.weight[...].astype(weights), axes=linear.axes)
    return linear


def side_by_side(linears: list[Linear], config: ModelConfig, weights: Weights) -> PreparedLinear:
    """Concatenate linear maps of the same input into one map for generation, its outputs in the order of `linears`."""
    weight_IO = np.concatenate([np.asarray(linear.weight[...]) for linear in linears], axis=1)
    biases = [linear.bias[...] for linear in linears if linear.bias is not None]
    return prepared_linear(weight_IO, jnp.concatenate(biases) if biases else None, config, weights)


def prepared_linear(
    weight_IO: np.ndarray, bias_O: jax.Array | None, config: ModelConfig, weights: Weights
) -> PreparedLinear:
    """Build the linear map for generation on CPUs, or for int8, from a float weight."""
    kind = {"float32": TiledLinear, "bfloat16": Bfloat16Linear, "int8": Int8Linear}[weights]
    return kind(weight_IO.T.astype(np.float32), bias_O, config.compute_dtype)
