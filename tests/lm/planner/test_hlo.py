"""Collectives are parsed from the text of a compiled program: each is counted once per iteration of its loops."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lm.planner.hlo import Collective, byte_count, collectives, kernels, overlap_of
from lm.planner.topology import topology_of

LOOPS = """
HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %gathered = f32[32,4]{1,0:T(8,128)} all-gather(%p), channel_id=7, replica_groups=[2,4]<=[8], dimensions={0}
}

%inner_condition (p: s32[]) -> pred[] {
  %p = s32[] parameter(0)
  %bound = u32[]{:T(128)} constant(5)
  %start_of_a_minimum = s32[] constant(2147483647)
  ROOT %less = pred[] compare(%p, %bound), direction=LT
}

%outer (p: f32[8]) -> f32[8] {
  %start = (bf16[2]{0}, bf16[16]{0}) all-gather-start(%p), channel_id=8, replica_groups={{0,1,2,3,4,5,6,7}}
  ROOT %loop = f32[8] while(%p), condition=%inner_condition, body=%inner
}

%outer_condition (p: s32[]) -> pred[] {
  ROOT %less = pred[] constant(true)
}

%all-reduce-scatter.3 (p: f32[64]) -> f32[8] {
  ROOT %r = f32[64]{0} all-reduce(%p), channel_id=9, replica_groups=mesh['data'=2,'fsdp'=4] {'fsdp'}, to_apply=%add
}

%again (p: f32[8]) -> f32[8] {
  ROOT %same = f32[32,4]{1,0} all-gather(%p), channel_id=7, replica_groups=[2,4]<=[8], dimensions={0}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %twice = f32[8] while(%p), condition=%outer_condition, body=%outer, backend_config={"known_trip_count":{"n":"3"}}
  %f = f32[8] fusion(%p), kind=kCustom, calls=%all-reduce-scatter.3
  %g = f32[8] fusion(%p), kind=kLoop, calls=%again
  %one = f32[2]{0} reduce-scatter(%p), channel_id=10, replica_groups={{0,1,2,3}}, dimensions={0}, to_apply=%add
  %begun = ((f32[8]{0}, f32[16]{0}), (f32[2]{0}, f32[4]{0})) reduce-scatter-start(%p, %q), replica_groups={{0,1,2,3}}
  %also = f32[4]{0} all-to-all(%p), channel_id=10, replica_groups={{0,1,2,3}}, dimensions={0}
  %splash_mha_fwd.4 = f32[8] custom-call(%p), custom_call_target="tpu_custom_call"
  %two = (f32[2]{0}, bf16[3,5]{1,0}) all-reduce(%y, %z), to_apply=%add, metadata={op_name="jit(f)/mean"}
  %sent = (f32[100]{0}, u32[], token[]) send(%p, %token), channel_id=12, is_host_transfer=true
  %kept = (f32[100]{0}, u32[], token[]) send(%p, %token), channel_id=13
  ROOT %moved = (f32[6], f32[6], u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1},{1,0}}
}
"""


PEELED = """
%body (p: f32[8]) -> f32[8] {
  ROOT %gathered = f32[32]{0} all-gather(%p), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
}

%less_than (p: s32[]) -> pred[] {
  %bound = s32[] constant(8)
  ROOT %less = pred[] compare(%p, %bound), direction=LT
}

%condition (p: s32[]) -> pred[] {
  ROOT %fused = pred[] fusion(%p), kind=kLoop, calls=%less_than
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %one = s32[] constant(1)
  %counted = s32[] copy(%one)
  %from = (f32[8]{0}, s32[]) tuple(%p, %counted)
  ROOT %loop = f32[8] while(%from), condition=%condition, body=%body, backend_config={INDEX}
}
"""


@pytest.mark.parametrize(("index", "turns"), [('"known_induction_variable":{"tuple_index":"1"}', 7), ("", 8)])
def test_a_loop_with_a_peeled_first_iteration_has_one_less(index, turns):
    (one,) = collectives(PEELED.replace("INDEX", index), 4)
    assert one.times == turns


def test_each_collective_counts_once_per_iteration_of_its_loops():
    found = {(one.kind, one.bytes, one.group, one.times) for one in collectives(LOOPS, 8)}
    assert found == {
        (
            "all-gather",
            512,
            4,
            15,
        ),  # in a loop of 5, by its condition, inside one of 3, by the compiler's annotation; once per channel
        ("all-gather", 32, 8, 3),  # the start operation lists its operand too
        ("reduce-scatter", 256, 4, 1),  # a TPU's fusion
        ("reduce-scatter", 32, 4, 1),
        ("reduce-scatter", 96, 4, 1),  # of a GPU: the start of two lists their operands too
        ("all-to-all", 16, 4, 1),  # with the channel of the previous one, as inside a shard_map
        ("all-reduce", 38, 8, 1),  # two arrays together
        ("collective-permute", 24, 8, 1),
        ("send", 400, 8, 1),  # to another slice, through the host
    }
    (named,) = [one for one in collectives(LOOPS, 8) if one.source]
    assert (named.source, named.type) == ("jit(f)/mean", "bf16[3,5]")
    assert kernels(LOOPS) == ["splash_mha_fwd"]


OF_SHARD_MAP = """
%piece (p: f32[8]) -> f32[8] {
  ROOT %c = f32[8] all-gather(%p), channel_id=1, replica_groups={{0,1}}, metadata={op_name="g" stack_frame_id=4}
}

%other_piece (p: f32[8]) -> f32[8] {
  ROOT %e = f32[8] all-gather(%p), channel_id=1, replica_groups={{0,1}}, metadata={op_name="g" stack_frame_id=4}
}

%other_gather (p: f32[8]) -> f32[8] {
  ROOT %d = f32[8] all-gather(%p), channel_id=1, replica_groups={{0,1}}, metadata={op_name="g" stack_frame_id=5}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %a = f32[8] collective-permute(%p), channel_id=1, source_target_pairs={{0,1},{1,0}}, metadata={stack_frame_id=3}
  %b = f32[8] collective-permute(%p), channel_id=1, source_target_pairs={{0,1},{1,0}}, metadata={stack_frame_id=3}
  %1 = f32[8] fusion(%p), kind=kCustom, calls=%piece
  %2 = f32[8] fusion(%p), kind=kCustom, calls=%other_piece
  ROOT %3 = f32[8] fusion(%p), kind=kCustom, calls=%other_gather
}
"""


def test_collectives_of_shard_map_are_counted_separately_although_they_share_a_channel():
    kinds = [one.kind for one in collectives(OF_SHARD_MAP, 2)]
    assert sorted(kinds) == ["all-gather"] * 2 + ["collective-permute"] * 2


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-gather", 75),
        ("all-reduce", 150),
        ("reduce-scatter", 75),
        ("all-to-all", 75),
        ("collective-permute", 100),
        ("send", 100),
    ],
)
def test_bytes_sent_by_a_ring(kind, sent):
    assert Collective(kind, 100, 4, 1, "", "").wire_bytes == sent
    assert Collective(kind, 100, 4, 3, "", "").wire_bytes == 3 * sent


@pytest.mark.parametrize(
    ("type_", "size"),
    [
        ("f32[2,3]{1,0}", 24), ("(bf16[8]{0}, u8[3])", 19), ("pred[]", 1), ("s4[3]", 2), ("f8e4m3fn[5]", 5),
        ("f32[<=4]", 16), ("token[]", 0),
    ],
)  # fmt: skip
def test_bytes_of_a_type(type_, size):
    assert byte_count(type_) == size


@pytest.mark.parametrize("turns", [1, 6])
def test_a_real_compiled_program(turns):
    """A loop that gathers a row of a sharded matrix and sums the result over the devices."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    cut = NamedSharding(mesh, PartitionSpec("x"))

    @jax.jit
    def f(x_ND):
        def body(total, row_D):
            whole_D = jax.lax.with_sharding_constraint(jnp.sin(row_D), NamedSharding(mesh, PartitionSpec()))
            return total + whole_D * whole_D[::-1], None

        return jax.lax.scan(body, jnp.zeros(64), x_ND)[0]

    rows = jax.ShapeDtypeStruct((turns, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, "x")))
    gathered = [one for one in collectives(str(f.lower(rows).compile().as_text()), 8) if one.kind == "all-gather"]
    assert [(one.bytes, one.group, one.times) for one in gathered] == [(256, 8, turns)] or gathered[
        0
    ].bytes == 256 * turns
    summed = jax.jit(lambda x: jnp.sum(jnp.sin(x))).lower(jax.ShapeDtypeStruct((64,), jnp.float32, sharding=cut))
    assert [(one.kind, one.bytes, one.times) for one in collectives(str(summed.compile().as_text()), 8)] == [
        ("all-reduce", 4, 1)
    ]


# Overlap


CHIP = dataclasses.replace(topology_of("v5e:4x4").chip, devices=1, flops=2e12, link_rate=1e9)
"""A product of (1000, 1000) matrices takes 1 ms, and so does sending 1 MB."""

PROGRAM = """
HloModule step, is_scheduled=true

%product (a: bf16[1000,1000], b: bf16[1000,1000]) -> bf16[1000,1000] {{
  %a = bf16[1000,1000]{{1,0}} parameter(0)
  %b = bf16[1000,1000]{{1,0}} parameter(1)
  ROOT %c = bf16[1000,1000]{{1,0}} dot(%a, %b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}

%begin (p: f32[1]) -> f32[1] {{
  %gathered = bf16[500,1000]{{1,0}} all-gather(%p), channel_id=3, replica_groups={{{{0,1}}}}, dimensions={{0}}
  ROOT %begun = (f32[1], f32[1]) custom-call(%gathered), custom_call_target="AsyncCollectiveStart"
}}

%wrapped (p: f32[1]) -> f32[1] {{
  ROOT %gathered = bf16[500,1000]{{1,0}} all-gather(%p), channel_id=5, replica_groups={{{{0,1}}}}, dimensions={{0}}
}}

%end (p: f32[1]) -> f32[1] {{
  %same = bf16[500,1000]{{1,0}} all-gather(%p), channel_id=3, replica_groups={{{{0,1}}}}, dimensions={{0}}
  ROOT %ended = f32[1] custom-call(%same), custom_call_target="AsyncCollectiveDone"
}}

%all-reduce-scatter.1 (p: f32[1]) -> f32[1] {{
  ROOT %sum = bf16[500,1000]{{1,0}} all-reduce(%p), channel_id=4, replica_groups={{{{0,1}}}}, to_apply=%add
}}

%body (p: f32[1]) -> f32[1] {{
  %p = f32[1] parameter(0)
  %x = bf16[1000,1000]{{1,0}} parameter(1)
{inside}
}}

%condition (p: s32[]) -> pred[] {{
  %bound = s32[] constant(5)
  ROOT %less = pred[] compare(%p, %bound), direction=LT
}}

ENTRY %main (p: f32[1]) -> f32[1] {{
  %p = f32[1] parameter(0)
  ROOT %loop = f32[1] while(%p), condition=%condition, body=%body
}}
"""
START = (
    "%g{0} = ((bf16[{1},1000]), bf16[{2},1000]) all-gather-start(%p), replica_groups={{{{0,1}}}}, dimensions={{{{0}}}}"
)
DONE = "%d{0} = bf16[{2},1000] all-gather-done(%g{0})"
DOT = "%m{0} = bf16[1000,1000]{{{{1,0}}}} dot(%x, %x), lhs_contracting_dims={{{{1}}}}, rhs_contracting_dims={{{{0}}}}"
FUSED = "%m{0} = bf16[1000,1000]{{{{1,0}}}} fusion(%x, %x), kind=kOutput, calls=%product"

OFFLOADED = '%s.call-start = ((), (), (s32[1])) call-start(), async_execution_thread="sparsecore", to_apply=%wrapped'


def share_of(*lines: str) -> tuple[float, float]:
    """(overlapped share of the bytes, milliseconds exposed per iteration)."""
    found = overlap_of(PROGRAM.format(inside="\n".join(f"  {line}" for line in lines)), 2, CHIP)
    return found.share, 1e3 * found.exposed_seconds / 5


def line(form: str, name: str = "", rows: int = 1000) -> str:
    return form.format(name, rows // 2, rows).replace("{{", "{").replace("}}", "}")


BIG = 2000
"""Rows of a collective that takes 2 ms: half of the 4 MB come from the other device."""


@pytest.mark.parametrize(
    ("lines", "share", "exposed"),
    [
        pytest.param([line(START), line(DOT), line(DONE)], 1.0, 0.0, id="arithmetic of the same time"),
        pytest.param([line(START), line(FUSED), line(DONE)], 1.0, 0.0, id="in a fusion"),
        pytest.param([line(START), line(DONE), line(DOT)], 0.0, 1.0, id="done at once"),
        pytest.param([line(DOT), line(START), line(DONE)], 0.0, 1.0, id="arithmetic before"),
        pytest.param([line(START, "", BIG), line(DOT), line(DONE, "", BIG)], 0.0, 1.0, id="too little arithmetic"),
        pytest.param(
            [line(START, "1"), line(START, "2"), line(DOT), line(DONE, "1"), line(DONE, "2")], 0.5, 1.0,
            id="two begun, time for one",
        ),
        pytest.param(
            [line(START, "1"), line(START, "2"), line(DOT, "1"), line(DONE, "1"), line(DOT, "2"), line(DONE, "2")],
            1.0, 0.0, id="two begun, time for both",
        ),
        pytest.param(["%s = bf16[1000,1000] all-gather(%p), replica_groups={{0,1}}, dimensions={0}"], 0.0, 1.0,
                     id="not asynchronous"),
        pytest.param(["%f = f32[1] fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1"], 0.0, 0.5,
                     id="a sum of which a part is kept, of a TPU"),
        pytest.param(
            ["%async-collective-start.7 = (f32[1], f32[1]) fusion(%p), kind=kCustom, calls=%begin", line(FUSED),
             "%async-collective-done.7 = f32[1] fusion(%m), kind=kCustom, calls=%end"], 1.0, 0.0,
            id="in fusions of a TPU",
        ),
        pytest.param(
            ["%s = ((f32[1]), f32[1]) async-start(%p), calls=%wrapped", line(FUSED),
             "%e = f32[1] async-done(%s)"], 1.0, 0.0,
            id="in a computation of its own",
        ),
        pytest.param(
            [OFFLOADED, line(FUSED), "%s.call-update = ((), (), (s32[1])) call-update(%s.call-start)",
             "%s.call-done = f32[1] call-done(%s.call-update)"], 1.0, 0.0,
            id="on a TPU's SparseCore",
        ),
        pytest.param(
            [OFFLOADED, "%s.call-done = f32[1] call-done(%s.call-start)", line(FUSED)], 0.0, 0.5,
            id="on a TPU's SparseCore, done at once",
        ),
    ],
)  # fmt: skip
def test_a_collective_overlaps_if_the_products_between_start_and_done_take_as_long(lines, share, exposed):
    assert share_of(*lines) == pytest.approx((share, exposed))


def test_a_program_without_collectives_never_waits():
    assert share_of(line(DOT)) == (1.0, 0.0)
