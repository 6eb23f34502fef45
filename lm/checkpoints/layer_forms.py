"""Convert between the two forms of layers in a checkpoint, one by one or as a stack (ModelConfig.scan_layers), so that
a checkpoint of either form can be restored into a model of the other."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from lm.model.param_names import IN_BLOCK, are_stacked, stack_names, unstack_names


def as_stored(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes, dtypes and shardings of the arrays `wanted`, but with the layers stacked or one by one as in a
    checkpoint's arrays `found`. If a stack has one value for all layers (Adafactor's placeholder for a moment that it
    does not keep), each layer gets that value."""
    abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in wanted.items()}
    stacked = are_stacked(wanted)
    if stacked is None or are_stacked(found) in (None, stacked):
        return abstract

    def one(name: str, x: jax.ShapeDtypeStruct, layer: int) -> jax.ShapeDtypeStruct:
        if len(x.shape) < 2:
            return x
        return jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=respecified(x.sharding, lambda spec: spec[1:]))

    def whole(name: str, layers: list[jax.ShapeDtypeStruct]) -> jax.ShapeDtypeStruct:
        x = layers[0]
        if name in found and tuple(found[name].shape) == x.shape == (1,):
            return x
        sharding = respecified(x.sharding, lambda spec: (None, *spec))
        return jax.ShapeDtypeStruct((len(layers), *x.shape), x.dtype, sharding=sharding)

    if not stacked:
        return stack_names(abstract, whole)
    layers = max(x.shape[0] for name, x in wanted.items() if IN_BLOCK.fullmatch(name) and len(x.shape) > 1)
    return unstack_names(abstract, layers, one)


def respecified(sharding: Sharding | None, change: Any) -> Sharding | None:
    """Return the sharding with `change` applied to its PartitionSpec, if it has one."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec(*change(tuple(sharding.spec))))


def as_wanted(stored: Mapping[str, jax.Array], wanted: Mapping[str, Any]) -> Mapping[str, jax.Array]:
    """Return a checkpoint's arrays with the layers stacked or one by one, and sharded, as the arrays `wanted` are."""
    if stored.keys() == wanted.keys():
        return stored

    def whole(name: str, layers: list[jax.Array]) -> jax.Array:
        return layers[0] if layers[0].shape == wanted[name].shape else jnp.stack(layers)

    def one(name: str, x: jax.Array, layer: int) -> jax.Array:
        return x if x.shape == wanted[name].shape else x[layer]

    def convert(stored: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        if are_stacked(wanted):
            return stack_names(stored, whole)
        layers = 1 + max(int(found[2]) for name in wanted if (found := IN_BLOCK.fullmatch(name)))
        return unstack_names(stored, layers, one)

    return jax.jit(convert, out_shardings={name: x.sharding for name, x in wanted.items()})(stored)
