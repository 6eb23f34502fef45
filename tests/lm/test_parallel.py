"""Placement of devices in the mesh, with descriptions of TPU chips like those of JAX."""

import itertools
import re
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lm.config import MeshConfig
from lm.devices import Devices, Target, mesh_sizes
from lm.errors import UsageError
from lm.parallel import (
    CONTEXT,
    MESH_AXES,
    Context,
    device_grid,
    on_each_device,
    own_rows,
    reduce_scatter_width,
    scatter_steps,
)
from tests.lm.model_configs import LLAMA


@dataclass(frozen=True)
class Chip:
    id: int
    coords: tuple[int, int, int]
    slice_index: int = 0
    process_index: int = 0
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5"


def torus(x: int, y: int, z: int, slices: int = 1) -> list[Any]:
    places = itertools.product(range(slices), range(z), range(y), range(x))
    return [Chip(number, (a, b, c), one) for number, (one, c, b, a) in enumerate(places)]


def hops(one: Chip, other: Chip, size: tuple[int, int, int]) -> int:
    """Number of links between two chips; sides of four and more are rings."""
    apart = [abs(a - b) for a, b in zip(one.coords, other.coords, strict=True)]
    return sum(min(d, n - d) if n >= 4 else d for d, n in zip(apart, size, strict=True))


@pytest.mark.parametrize(
    ("size", "shape", "axis", "most"),
    [((8, 8, 8), (1, 64, 1, 8), 3, 1.0), ((8, 8, 8), (1, 64, 1, 8), 1, 1.2), ((4, 4, 1), (1, 16, 1, 1), 1, 1.3)],
)
def test_neighbours_in_the_mesh_are_close_in_the_torus(size, shape, axis, most):
    devices = torus(*size)
    np.random.default_rng(0).shuffle(devices)  # the order of discovery is arbitrary
    grid = device_grid(list(shape), devices)
    after = np.roll(grid, -1, axis)
    assert np.mean([hops(a, b, size) for a, b in zip(grid.flat, after.flat, strict=True)]) <= most
    assert {chip.id for chip in grid.flat} == {chip.id for chip in devices}


@pytest.mark.parametrize(
    ("size", "shape", "steps"),
    [
        ((4, 4, 2), (1, 32, 1, 1), {"fsdp": {(16, 2), (8, 4)}}),  # either of the fastest
        ((8, 8, 1), (1, 64, 1, 1), {"fsdp": {(8, 8)}}),
        ((8, 8, 4), (1, 16, 16, 1), {"fsdp": {(4, 4)}, "context": {(8, 2)}}),
        ((8, 1, 1), (1, 8, 1, 1), {}),  # a line
    ],
)
def test_gradients_are_scattered_along_one_axis_of_the_torus_at_a_time(size, shape, steps):
    mesh = Mesh(device_grid(list(shape), torus(*size)), MESH_AXES)
    found = dict(scatter_steps(mesh))
    assert found.keys() == steps.keys()
    assert all(found[name] in steps[name] for name in steps)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("sizes", [(4, 2), (2, 4), (2, 2, 2)])
def test_scattering_in_steps_equals_scattering_at_once(sizes, platform):
    """For TPUs along the first axis: libtpu all-reduces an array whose minor axis is cut into less than 128 columns."""
    mesh = Mesh(np.reshape(jax.devices()[:8], (1, 8, 1, 1)), MESH_AXES, axis_types=(AxisType.Auto,) * 4)
    values = np.random.default_rng(0).normal(size=(8, 3, 16)).astype(np.float32)
    scatter = on_each_device((("batch", None, None),), (None, "width"))(lambda part: reduce_scatter_width(part[0], 1))
    in_steps = Context(Target(platform), scatter_steps=(("fsdp", sizes),))
    with CONTEXT(in_steps), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        axes = re.findall(r"scatter_dimension=(\d)", str(jax.make_jaxpr(scatter)(values)))
        assert axes == ["0" if platform == "tpu" else "1"] * len(sizes)
        found = jax.jit(scatter)(jax.device_put(values, NamedSharding(mesh, PartitionSpec("fsdp"))))
    np.testing.assert_allclose(found, values.sum(0), rtol=1e-5, atol=1e-5)


def test_slices_divide_only_the_data_axis():
    grid = device_grid([4, 8, 1, 1], torus(4, 4, 1, slices=2), slices=2)
    for number, replica in enumerate(grid):
        assert {chip.slice_index for chip in replica.flat} == {number // 2}
    devices = Devices(32, "TPU v5", Target("tpu"), slices=2)
    assert mesh_sizes(MeshConfig(fsdp=8), LLAMA, 32, devices)["data"] == 4
    with pytest.raises(UsageError, match="leaves data = 1 over, which the 2 slices do not divide"):
        mesh_sizes(MeshConfig(fsdp=32), replace(LLAMA, width=64), 32, devices)


def test_each_process_reads_exactly_the_rows_of_its_devices():
    """16 hosts of four chips each, in squares of a 4x4x4 torus: the chips of a host are not consecutive in the mesh."""
    host = lambda x, y, z: x // 2 + 2 * (y // 2) + 4 * z
    chips = [replace(chip, process_index=host(*chip.coords)) for chip in torus(4, 4, 4)]
    mesh = Mesh(device_grid([1, 64, 1, 1], chips), MESH_AXES, axis_types=(AxisType.Auto,) * 4)
    rows = [own_rows(mesh, 128, 32, process).tolist() for process in range(16)]
    of_chips = [chip.process_index for chip in mesh.devices.flat]  # two rows each, in this order
    assert rows == [[row for row in range(128) if of_chips[row // 2] == process] for process in range(16)]
    assert all(len(one) == 8 and max(one) - min(one) > 8 for one in rows)  # not consecutive
