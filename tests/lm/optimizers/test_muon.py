"""Muon on meshes: results equal those of one device, work is divided evenly, and communication is small."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import MeshConfig
from lm.optimizers.muon import COEFFICIENTS, orthogonal
from lm.parallel import make_mesh, shardings, traced_on
from tests.bench.meshes import MESHES, measure
from tests.lm.model_configs import MODERN
from tests.lm.trees import leaf_pairs

CONFIG = dataclasses.replace(MODERN, heads=8, kv_heads=8, width=64)  # 8 divides every axis
SQUARE, WIDE, NARROW = (64, 64), (64, 256), (64, 16)
MATRICES = {
    "query": (SQUARE, ("width", "heads")),
    "out": (SQUARE, ("heads", "width")),
    "up": (WIDE, ("width", "mlp")),
    "down": (WIDE[::-1], ("mlp", "width")),
    "key": (NARROW, ("width", "kv_heads")),
    "odd": ((36, 20), ("width", "mlp")),
}
"""{name: (shape, logical axes)} of one layer. No mesh of 8 divides the odd matrix, so it is replicated."""


def matrices(layers: int, scanned: bool) -> dict[str, nnx.Param]:
    """Parameters of `layers` layers, stacked or separate."""
    generator, made = np.random.default_rng(0), {}
    for name, (shape, axes) in MATRICES.items():
        stack = jnp.asarray(generator.normal(size=(layers, *shape)), jnp.float32)
        if scanned:
            made[name] = nnx.Param(stack, axes=("layers", *axes))
        else:
            made |= {f"{name} {layer}": nnx.Param(stack[layer], axes=axes) for layer in range(layers)}
    return made


def values(tree: dict[str, nnx.Param]) -> dict[str, np.ndarray]:
    return {name: np.asarray(node[...]) for name, node in tree.items()}


def by_singular_values(matrix: np.ndarray, iterations: int) -> np.ndarray:
    """Apply the iteration's polynomial to each singular value, in float64."""
    u, s, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    s = s / np.linalg.norm(s, axis=-1, keepdims=True)
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    return (u * s[..., None, :]) @ v


QUICK = [("fsdp 8", 3, True), ("fsdp 2 x tensor 2 x context 2", 1, False)]
CASES = [(mesh, layers, layers == 8) for mesh in MESHES for layers in (3, 8)]


@pytest.mark.fast_rows
@pytest.mark.parametrize(("mesh", "layers", "scanned"), QUICK + CASES)
def test_every_mesh_gives_the_result_of_one_device(mesh, layers, scanned):
    """One layer has fewer matrices than devices; with three, devices do not divide their number."""
    tree = matrices(layers, scanned)
    alone = jax.jit(orthogonal, static_argnums=1)(tree, 5)
    devices = make_mesh(MeshConfig(**MESHES[mesh]), CONFIG, 8)
    placed = jax.device_put(tree, shardings(tree, devices))
    found = jax.jit(traced_on(devices, lambda tree: orthogonal(tree, 5)))(placed)
    for name, value in values(found).items():
        np.testing.assert_allclose(value, values(alone)[name], rtol=0, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(value, by_singular_values(values(tree)[name], 5), rtol=0, atol=1e-4, err_msg=name)
    for one, before in leaf_pairs(found, placed):
        assert one.sharding.is_equivalent_to(before.sharding, one.ndim)


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [True, False])
@pytest.mark.parametrize("mesh", ["data 8", "fsdp 8", "fsdp 2 x tensor 2 x context 2"])
def test_each_of_eight_devices_computes_an_eighth_with_little_communication(mesh, scan_layers):
    """Two layers have 8 matrices of 256 KiB and 6 of 1 MiB, which eight devices cannot divide evenly. Without division,
    every device of "data 8" computed all of them, and every device of "fsdp 8" received 90 MiB."""
    alone = measure({}, count=1, layers=2, what="update", scan_layers=scan_layers)
    found = measure(MESHES[mesh], layers=2, what="update", scan_layers=scan_layers)
    assert found["flops"] * 8 <= 1.4 * alone["flops"]
    moved = sum(found[kind] for kind in ("all_gather_mib", "all_to_all_mib", "all_reduce_mib", "permute_mib"))
    assert moved <= 13  # all 8 MiB of results gathered as parameters are sharded, and sums of divided matrices
