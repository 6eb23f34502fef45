"""Write a checkpoint of a model that was trained elsewhere, from parameters that are read one at a time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from lm.checkpoints.addresses import kvstore_spec, orbax_path
from lm.checkpoints.errors import FREE_SPACE, readable_errors
from lm.checkpoints.manifest import write_manifest
from lm.checkpoints.reading import item_handler
from lm.config import ModelConfig
from lm.errors import InputError
from lm.model.param_names import IN_BLOCK, named_leaves
from lm.model.transformer import abstract_model
from lm.storage import Place


def array_spec(item: Place, array: str) -> dict[str, Any]:
    """Return TensorStore's JSON spec of an array in Orbax's format; `item` is the folder model/ of a checkpoint."""
    base = {"driver": "ocdbt", "base": kvstore_spec(item), "path": f"{array}/"}
    return {"driver": "zarr", "kvstore": base}


def write_parameters(
    checkpoint: Path, config: ModelConfig, parameters: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
    """Write a checkpoint without optimizer state to the new folder `checkpoint`, with `about` in its manifest. Layers
    are stored one by one or, with config.scan_layers, as a stack.

    `parameters` maps names such as "blocks.0.attention.query.weight" to values, which are read one at a time and
    converted to config.parameter_dtype. Raises InputError for a missing parameter or a wrong shape, and if the disk
    cannot be written.
    """
    leaves = named_leaves(abstract_model(config))
    item = checkpoint.resolve() / "model"
    with readable_errors(checkpoint, "written", FREE_SPACE):
        item.mkdir(parents=True)
        # Let Orbax write its metadata for arrays of one value; the real arrays then replace these.
        tiny = {name: jnp.zeros((1,) * len(leaf.shape), leaf.dtype) for name, leaf in leaves.items()}
        handler = item_handler()
        handler.save(orbax_path(item), args=ocp.args.PyTreeSave(tiny))
        handler.finalize(orbax_path(item))
        context = ts.Context()
    for name, leaf in leaves.items():
        stacked = IN_BLOCK.fullmatch(name) if config.scan_layers else None
        layers = [f"{stacked[1]}{layer}.{stacked[3]}" for layer in range(config.layers)] if stacked else []
        block = (1, *leaf.shape[1:]) if layers else leaf.shape
        with readable_errors(checkpoint, "written", FREE_SPACE):
            array = ts.open(
                array_spec(item, name) | {"metadata": {"compressor": None}}, create=True, delete_existing=True,
                dtype=ts.dtype(np.dtype(leaf.dtype)), shape=leaf.shape, chunk_layout=ts.ChunkLayout(chunk_shape=block),
                context=context,
            ).result()  # fmt: skip
        for layer, one in enumerate(layers or [name]):
            value = checked(parameters, one, leaf.shape[1:] if layers else leaf.shape, np.dtype(leaf.dtype))
            with readable_errors(checkpoint, "written", FREE_SPACE):
                place = array[layer] if layers else array
                place.write(value).result()
    write_manifest(checkpoint, about)


def checked(parameters: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return the parameter of that name in `dtype`. Raises InputError if it is missing, has another shape, or has
    values that are not finite, before or after the conversion."""
    value = parameters.get(name)
    found = "absent" if value is None else tuple(value.shape)
    if value is None or found != tuple(shape):
        raise InputError(
            f"{name} is {found}, but the model's config needs {tuple(shape)}. Give parameters that belong to this "
            "config."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.ascontiguousarray(value, dtype)
    if bad := converted.size - np.count_nonzero(np.isfinite(converted)):
        raise InputError(
            f"{bad:,} of the {converted.size:,} values of {name} are NaN or infinite in {dtype.name}; all weights "
            "must be finite. Download the model again, or use another."
        )
    return converted
