"""One replica reads a checkpoint for all: the others receive every bit, once, and its errors."""

import itertools
import json
import re
from collections.abc import Generator
from dataclasses import replace
from typing import Any, cast
from urllib.parse import unquote

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lm.checkpoints import replicas
from lm.checkpoints.replicas import broadcast, broadcast_parts, first_replica
from lm.parallel import MESH_AXES
from lm.storage import Url, sizes_below, write_atomically
from lm.training.optimizer import make_optimizer
from lm.training.state import make_state
from tests import train_process
from tests.corpus import tiny_experiment
from tests.lm.test_parallel import torus
from tests.object_store import Store, serving, variables
from tests.replica_process import values_of
from tests.run_files import HANG_SECONDS

PIECE = 1000
TYPES = ("float32", "bfloat16", "int32")
CUT = (3, 16, 268), (None, ("fsdp", "context"), "tensor")
"""Shape and sharding: several chunks, the last of which overlaps the previous one."""
MESHES = [sizes for sizes in itertools.product((1, 2, 4, 8), repeat=4) if sizes[0] > 1 and np.prod(sizes) == 8]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch) -> None:
    monkeypatch.setattr(replicas, "PIECE_BYTES", PIECE)


def grid(sizes: tuple[int, ...]) -> Mesh:
    return Mesh(np.reshape(jax.devices()[:8], sizes), MESH_AXES, axis_types=(AxisType.Auto,) * 4)


def test_all_dtypes_of_a_state_are_tested():
    experiment = tiny_experiment()
    for name, dtype in itertools.product(("adamw", "adafactor", "lion"), ("float32", "bfloat16")):
        model = replace(experiment.model, parameter_dtype=dtype)
        optimizer = make_optimizer(replace(experiment.train.optimizer, name=name), 10)
        state = jax.eval_shape(lambda m=model, o=optimizer: make_state(m, o, 0, experiment.train.spikes))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} <= {*TYPES}


@pytest.mark.fast_rows
@pytest.mark.parametrize("sizes", MESHES)
def test_every_bit_of_the_first_replica_reaches_all_others(sizes):
    mesh = grid(sizes)
    first = Mesh(mesh.devices[:1], MESH_AXES, axis_types=mesh.axis_types)
    for dtype, (shape, spec) in (("int32", ((), ())), *((dtype, CUT) for dtype in TYPES)):
        values = values_of(dtype, shape)
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        read = jax.device_put(values, NamedSharding(first, sharding.spec))
        found = broadcast(read, jax.ShapeDtypeStruct(shape, values.dtype, sharding=sharding))
        assert found.sharding == sharding and len(found.addressable_shards) == 8
        for part in found.addressable_shards:
            assert np.asarray(part.data).tobytes() == values[part.index].tobytes(), (dtype, shape, part.device)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_device_needs_memory_for_the_state_and_two_chunks(dtype):
    sharding = NamedSharding(grid((2, 4, 1, 1)), PartitionSpec(None, "fsdp"))
    whole = jax.ShapeDtypeStruct((7, 64, 301), dtype, sharding=sharding)
    memory = broadcast_parts.lower(whole, sharding).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes == memory.argument_size_in_bytes == memory.output_size_in_bytes
    assert memory.argument_size_in_bytes >= 30 * PIECE and memory.temp_size_in_bytes <= 2.2 * PIECE


@pytest.mark.parametrize(
    ("process_of", "spec", "reads"),
    [
        (lambda data, fsdp: data, ("fsdp",), True),
        (lambda data, fsdp: 2 * data + fsdp, ("fsdp",), True),
        (lambda data, fsdp: data // 2, (), True),
        (lambda data, fsdp: 0, ("fsdp",), False),
        (lambda data, fsdp: fsdp, ("fsdp",), False),
        (lambda data, fsdp: data, (("fsdp", "data"),), False),
        (lambda data, fsdp: data, (None, "data"), False),
    ],
)
def test_the_first_replica_reads_arrays_sharded_across_processes(process_of, spec, reads):
    found = [replace(chip, process_index=process_of(*divmod(chip.id, 2))) for chip in torus(8, 1, 1)]
    chips: Any = np.reshape(np.array(found), (4, 2, 1, 1))
    first = first_replica(NamedSharding(Mesh(chips, MESH_AXES), PartitionSpec(*spec)))
    assert (first is not None) == reads
    if first is not None:
        assert first.spec == PartitionSpec(*spec)
        assert cast(Mesh, first.mesh).devices.tolist() == chips[:1].tolist()


@pytest.fixture(scope="module")
def server() -> Generator[Store]:
    with serving() as store, variables(store.environment()):
        yield store


def four(*words: str) -> tuple[list[int], list[str]]:
    """Exit codes and outputs of tests.replica_process."""
    processes = train_process.modules_together(["tests.replica_process", *words], 4)
    outputs = [process.communicate(timeout=HANG_SECONDS)[0] for process in processes]
    return [process.returncode for process in processes], outputs


@pytest.mark.slow
def test_two_replicas_restore_every_bit_read_each_object_once_and_fail_together(server):
    """Each replica reads its own part of ZeRO-1's moments, which are sharded over the replicas."""
    server.bucket("replicas")
    folder: Any = Url("s3://replicas/checkpoints")
    codes, outputs = four(str(folder), "save")
    assert codes == [0] * 4, outputs
    data = {name: size for name, size in sizes_below(folder).items() if size > 100_000}
    assert len(data) >= 6 and sum(data.values()) > 0.99 * sum(sizes_below(folder).values())
    server.downloaded.clear()
    codes, outputs = four(str(folder), "restore")
    assert codes == [0] * 4, outputs
    assert all(json.loads(output.splitlines()[-1]) == {"same": True} for output in outputs)
    sent = {unquote(path): size for path, size in server.downloaded.items()}
    for name, size in data.items():  # once for its hash, and once for its values
        assert 1.9 * size < sent[f"/replicas/checkpoints/{name}"] < 2.1 * size

    victim = folder / max((name for name in data if "/model/" in name), key=data.__getitem__)
    stored = victim.read_bytes()
    codes, outputs = four(str(folder), "restore", str(victim))
    assert codes == [1] * 4, outputs
    for output in outputs:
        assert re.search(r'/7 cannot be read: ValueError: .*Error reading "(float|bfloat|int)\d+/[01]\.0" in', output)
        assert '"checkpoints/7/model/"' in output
    write_atomically(victim, stored[:9] + bytes([stored[9] ^ 1]) + stored[10:])
    codes, outputs = four(str(folder), "restore")
    assert codes == [1] * 4, outputs
    assert all(f"{victim} has the SHA-256 " in output and "Traceback" not in output for output in outputs)
