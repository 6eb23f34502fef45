"""What the compiler makes of the step on meshes: no device does more than its share, or sends the whole batch."""

import dataclasses
import functools
import re

import jax
import pytest

from lm.config import MeshConfig
from tests.bench.meshes import MESHES, MIB, byte_count, collectives, compiled, facts, measure, small

SHAPES = functools.partial(measure, layers=2)
WHOLE_BATCH = 8 * 512 * 256 * 4 / MIB  # the residual stream of all sequences, in MiB of float32


@functools.cache
def alone(what: str = "training") -> dict:
    return SHAPES({}, count=1, what=what)


@pytest.mark.parametrize(("mesh", "most_work", "most_memory"), [("fsdp 8", 1.1, 1.3), ("context 4 x data 2", 1.2, 1.3)])
def test_a_device_of_eight_does_and_holds_an_eighth(mesh, most_work, most_memory):
    found = SHAPES(MESHES[mesh])
    assert found["flops"] * 8 <= most_work * alone()["flops"]
    assert found["temp_mib"] * 8 <= most_memory * alone()["temp_mib"]
    # Parameters and their gradients: 2 x 4.2 MiB a layer, 4 MiB each for the embedding and the output.
    assert found["all_gather_mib"] <= 22 and found["all_reduce_mib"] <= 40
    assert found["largest_collective_mib"] <= WHOLE_BATCH


def test_validation_divides_its_work_and_moves_weights_alone():
    found = SHAPES(MESHES["fsdp 8"], what="validation")
    assert found["flops"] * 8 <= 1.1 * alone("validation")["flops"]
    assert found["all_reduce_mib"] == 0 and found["all_gather_mib"] <= 13  # 4.2 MiB a layer, 4 for the output table


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["context 8", "context 4 x data 2", "fsdp 2 x tensor 2 x context 2"])
def test_sampling_divides_its_rows_over_context_too(mesh):
    assert SHAPES(MESHES[mesh], what="sampling")["flops"] * 8 <= 1.1 * alone("sampling")["flops"]


def test_the_output_table_is_gathered_once_and_its_gradient_reduced_once():
    """However many parts the loss is taken in: no collective is in the loop over them."""
    model, train = small()
    model, train = dataclasses.replace(model, layers=1), dataclasses.replace(train, mesh=MeshConfig(fsdp=8))
    one, four = (
        facts(compiled("training", model, dataclasses.replace(train, loss_chunks=parts), jax.devices()))
        for parts in (1, 4)
    )
    for kind in ("all_gather_mib", "all_reduce_mib", "reduce_scatter_mib"):
        assert four[kind] == one[kind]
    program = compiled("training", model, dataclasses.replace(train, loss_chunks=4), jax.devices()).as_text()
    bodies = re.findall(r"^%?\S*(?:body|region)\S* .*?^}", program, re.MULTILINE | re.DOTALL)
    assert any("dot(" in body for body in bodies)  # the parts
    assert not any(name for body in bodies if "dot(" in body for name, _, _ in collectives(body))


def test_collectives_are_read_from_a_program():
    program = """
      %a = f32[8,4]{1,0} all-gather(%x), replica_groups={{0,1}}
      %b = (f32[2]{0}, bf16[3,5]{1,0}) all-reduce(%y, %z), to_apply=%add
      %c = f32[2]{0} all-gather-start(%x)
      %d = f32[2]{0} add(%x, %all-reduce.1)
    """
    assert [(kind, size) for kind, size, _ in collectives(program)] == [
        ("all-gather", 128), ("all-reduce", 38), ("all-gather", 8)
    ]  # fmt: skip
    assert byte_count("pred[3]") == 3
