"""Read the parameters of a checkpoint one at a time, without building the model.

Orbax stores an array as uncompressed blocks, in C order, in a key-value database (TensorStore's OCDBT). So one layer of
a stack (model.scan_layers) is a byte range of each block and can be read separately: only that layer is in memory.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

from lm.checkpoints.addresses import orbax_path
from lm.checkpoints.errors import OTHER, readable_errors
from lm.checkpoints.from_parameters import array_spec
from lm.checkpoints.reading import check_size, item_handler
from lm.errors import InputError
from lm.model.param_names import IN_BLOCK, unstack_names
from lm.storage import Place


class ArrayLayer(NamedTuple):
    """Location of a parameter in a checkpoint."""

    array: str
    """Name of the stored array."""
    layer: int | None
    """Index of the layer if the array is a stack, else None."""


class StoredParameters(Mapping[str, np.ndarray]):
    """{name: values} of the model in a checkpoint. Every layer has its own names, such as
    "blocks.0.attention.query.weight", even if the checkpoint stores the layers as a stack.

    Values are read on access, in their stored dtype, and not cached. Names, `shapes` and `dtypes` are known without
    reading values. Files are not verified (lm.checkpoints.reading.whole_parameters does that). Raises InputError if the
    checkpoint cannot be read, or claims far larger arrays than its files hold (lm.checkpoints.reading.check_size).
    """

    def __init__(self, checkpoint: Place, item: str = "model"):
        """`checkpoint` is the folder of a step, such as runs/demo/checkpoints/1100; `item` is the part of it to
        read."""
        self.folder, self.context = checkpoint / item, ts.Context()
        with readable_errors(checkpoint, "read", OTHER):
            stored: dict[str, Any] = item_handler().metadata(orbax_path(self.folder)).tree
        check_size(self.folder, stored)
        layers = max(
            (x.shape[0] for name, x in stored.items() if (m := IN_BLOCK.fullmatch(name)) and not m[2]), default=0
        )
        places = {name: ArrayLayer(name, None) for name in stored}
        self.places = unstack_names(places, layers, lambda name, place, layer: ArrayLayer(place.array, layer))
        of = lambda place: tuple(stored[place.array].shape)[0 if place.layer is None else 1 :]
        self.shapes = {name: of(place) for name, place in self.places.items()}
        self.dtypes = {name: np.dtype(stored[place.array].dtype).name for name, place in self.places.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __getitem__(self, name: str) -> np.ndarray:
        array, layer = self.places[name]
        with readable_errors(self.folder.parent, "read", OTHER):
            opened = ts.open(array_spec(self.folder, array), context=self.context, read=True).result()
            if layer is None:
                return opened.read().result()
            return layer_of(opened, layer)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise InputError unless the parameters have exactly these names and shapes."""
        for name in sorted(shapes.keys() | self.shapes.keys()):
            if shapes.get(name) != self.shapes.get(name):
                raise InputError(
                    f"{self.folder.parent} belongs to another model than the run's config.json: {name} is "
                    f"{self.shapes.get(name, 'absent')} there, {shapes.get(name, 'absent')} in the config. Restore "
                    "the config.json that the run was trained with."
                )


def layer_of(stack: ts.TensorStore, layer: int) -> np.ndarray:
    """Read one layer of a stack, whose first axis is the layers. Blocks that contain all layers, as Orbax writes them,
    are read by byte range, since TensorStore would read them completely. If the blocks divide the first axis,
    TensorStore reads little more than the layer."""
    spec = stack.spec().to_json()
    metadata, blocks = spec["metadata"], tuple(int(length or 0) for length in stack.chunk_layout.read_chunk.shape or ())
    plain = metadata["compressor"] is None and not metadata["filters"] and metadata["order"] == "C"
    if not plain or blocks[0] < stack.shape[0] or stack.kvstore is None:
        return stack[layer].read().result()
    dtype = stack.dtype.numpy_dtype
    found = np.zeros(stack.shape[1:], dtype)
    inner = blocks[1:]
    size = math.prod(inner) * dtype.itemsize
    counts = [-(-length // block) for length, block in zip(found.shape, inner, strict=True)]
    separator = metadata.get("dimension_separator", ".")
    for number in np.ndindex(*counts):
        key = separator.join(map(str, (0, *number)))
        read = stack.kvstore.read(key, byte_range=slice(layer * size, (layer + 1) * size)).result()
        if read.state != "value":  # absent, because all of it is the fill value
            return stack[layer].read().result()
        values = np.frombuffer(read.value, dtype).reshape(inner)
        where = tuple(slice(n * b, min((n + 1) * b, end)) for n, b, end in zip(number, inner, found.shape, strict=True))
        found[where] = values[tuple(slice(0, s.stop - s.start) for s in where)]
    return found
