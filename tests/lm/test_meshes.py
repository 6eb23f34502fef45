"""Compiled programs on meshes divide work and memory evenly and never send the whole batch."""

import collections
import functools
from dataclasses import replace

import jax
import pytest

from lm.config import MeshConfig
from lm.planner.hlo import COLLECTIVES, collectives, computations
from tests.bench.meshes import MESHES, MIB, compiled, facts, measure, small, training_step
from tests.traced import equations

SHAPES = functools.partial(measure, layers=1)
WHOLE_BATCH = 8 * 512 * 256 * 4 / MIB  # the residual stream of all sequences, in MiB of float32


@functools.cache
def on_one_device(what: str = "training", layers: int = 1) -> dict:
    return SHAPES({}, count=1, what=what, layers=layers)


@pytest.mark.fast_rows
@pytest.mark.parametrize("mesh", ["fsdp 8", "context 4 x data 2"])
def test_each_of_eight_devices_has_an_eighth_of_work_and_memory(mesh):
    found = SHAPES(MESHES[mesh])
    assert found["flops"] * 8 <= 1.1 * on_one_device()["flops"]
    assert found["temp_mib"] * 8 <= 1.3 * on_one_device()["temp_mib"]
    # Parameters and their gradients: 2 x 4.2 MiB per layer, 4 MiB each for embedding and output; keys and values.
    assert found["all_gather_mib"] <= (32 if "context" in mesh else 22) and found["all_reduce_mib"] <= 40
    assert found["largest_collective_mib"] <= WHOLE_BATCH


def test_validation_divides_its_work_and_sends_only_weights():
    found = SHAPES(MESHES["fsdp 8"], what="validation", layers=2)
    assert found["flops"] * 8 <= 1.1 * on_one_device("validation", 2)["flops"]
    assert found["all_reduce_mib"] == 0 and found["all_gather_mib"] <= 13  # 4.2 MiB per layer, 4 for the output table
    assert found["temp_mib"] * 8 <= 1.3 * on_one_device("validation", 2)["temp_mib"]  # one layer's weights at a time


@pytest.mark.slow
def test_sampling_sends_activations_instead_of_weights():
    """For one token of each row; gathering the weights would take 12 MiB."""
    found = SHAPES(MESHES["fsdp 8"], what="sampling")
    assert found["flops"] * 8 <= 1.1 * on_one_device("sampling")["flops"]
    assert found["all_gather_mib"] + found["all_reduce_mib"] + found["all_to_all_mib"] < 2
    assert found["temp_mib"] < 4  # less than the weights of a layer


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["context 8", "context 4 x data 2", "fsdp 2 x tensor 2 x context 2"])
def test_sampling_divides_its_rows_also_over_context(mesh):
    assert SHAPES(MESHES[mesh], what="sampling")["flops"] * 8 <= 1.1 * on_one_device("sampling")["flops"]


@pytest.mark.slow
def test_the_output_table_is_gathered_once_and_its_gradient_reduced_once():
    """For any number of loss chunks: the loop over them has no collective."""
    model, train = small()
    model, train = replace(model, layers=1), replace(train, mesh=MeshConfig(fsdp=8))
    programs = [compiled("training", model, replace(train, loss_chunks=parts), jax.devices()) for parts in (1, 4)]
    one, four = (facts(program, 8) for program in programs)
    for kind in ("all_gather_mib", "all_reduce_mib", "reduce_scatter_mib"):
        assert four[kind] == one[kind]
    bodies = [
        inside for name, inside in computations(programs[1].as_text())[0].items() if "body" in name or "region" in name
    ]
    products = [[one.operation for one in inside] for inside in bodies if any(one.operation == "dot" for one in inside)]
    assert products  # the loss chunks
    assert not any({*COLLECTIVES} & {*operations} for operations in products)


@pytest.mark.parametrize(("tied", "remat"), [(False, "none"), (True, "full")])
def test_weights_are_gathered_per_pass_and_gradients_reduce_scattered_once(tied, remat):
    """In the dtype of the products; the output table is gathered once per step, and its gradient reduce-scattered once
    per micro-batch, with a barrier before it becomes float32. Checked before XLA, because XLA for CPUs changes some
    collectives."""
    model, train = small()
    model = replace(model, layers=3, tie_embeddings=tied, compute_dtype="bfloat16", scan_layers=True)
    train = replace(train, mesh=MeshConfig(fsdp=8), micro_batches=2, batch_size=16, remat=remat)
    step, arguments = training_step(model, train, jax.devices())
    found = collections.Counter()
    for equation, times in equations(step.trace(*arguments).jaxpr.jaxpr):
        if "fsdp" in (equation.params.get("axes") or equation.params.get("axis_name") or ()):
            array = (equation.invars if equation.primitive.name == "reduce_scatter" else equation.outvars)[0].aval
            if array.size >= model.width * model.width:
                found[equation.primitive.name, array.dtype.name, tuple(sorted(array.shape))] += times
        if equation.primitive.name == "optimization_barrier":
            (array,) = (one.aval for one in equation.outvars)
            found["barrier", array.dtype.name, array.shape] += times
    turns, passes = train.micro_batches * model.layers, 1 if remat == "none" else 2
    square, wide, table = (256, 256), (256, 1024), (256, 4096)
    assert found == {
        ("all_gather", "bfloat16", square): passes * turns * 4,  # queries, keys, values and output
        ("all_gather", "bfloat16", wide): passes * turns * 3,  # gate, up and down
        ("all_gather", "bfloat16", table): 1,
        ("reduce_scatter", "bfloat16", square): turns * 4,
        ("reduce_scatter", "bfloat16", wide): turns * 3,
        ("reduce_scatter", "bfloat16", table): train.micro_batches,
        ("barrier", "bfloat16", (4096, 32)): train.micro_batches,
        ("all_to_all", "bfloat16", (1, 256, 512)): train.micro_batches,  # embeddings sent to the sequence of each token
        ("all_to_all", "bfloat16", (8, 32, 512)): train.micro_batches,  # their gradients
    }


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_are_scattered_and_the_table_is_gathered_once_per_step(tied):
    """For any number of micro-batches; lookups of tokens gather or sum no whole table."""
    model, train = small()
    model = replace(model, layers=1, tie_embeddings=tied)
    train = replace(train, mesh=MeshConfig(fsdp=8), micro_batches=2, batch_size=16)
    found = collectives(compiled("training", model, train, jax.devices()).as_text(), 8)
    moved = [one for one in found if one.group > 1]  # XLA for CPUs keeps sums over axes of size 1
    of_table = [one for one in moved if f"[{model.vocab_size}," in one.type or f",{model.vocab_size}]" in one.type]
    assert [(one.kind, one.times) for one in of_table if one.kind == "all-gather"] == [("all-gather", 1)]
    summed = {one.kind for one in moved if one.bytes > 4 * model.width * model.width}
    assert "all-reduce" not in summed and "reduce-scatter" in summed


@pytest.mark.slow
def test_with_tensor_parallelism_weights_are_gathered_only_over_their_width():
    """Each device gathers its half of the other axis: no collective has a whole weight."""
    model, train = small()
    model = replace(model, layers=1, mlp_width=1536)
    train = replace(train, mesh=MeshConfig(fsdp=4, tensor=2))
    found = collectives(compiled("training", model, train, jax.devices()).as_text(), 8)
    moved = {(one.kind, one.group, one.type) for one in found if one.group > 1}
    assert {("all-gather", 4, "f32[256,768]"), ("all-gather", 4, "f32[768,256]")} <= moved
    assert {("reduce-scatter", 4, "f32[64,768]"), ("reduce-scatter", 4, "f32[768,64]")} <= moved
    whole = ("[256,1536]", "[1536,256]", "[64,1536]", "[1536,64]", "[256,256]")
    assert not [one for one in moved if one[2].endswith(whole) and one[0] != "reduce-scatter"]
