"""What of a program's exchanges ends behind arithmetic is read from the order of its instructions."""

import dataclasses

import pytest

from lm.planner.hlo import overlap_of
from lm.planner.topology import topology_of

CHIP = dataclasses.replace(topology_of("v5e:4x4").chip, devices=1, flops=2e12, link_rate=1e9)
"""A product of (1000, 1000) matrices takes 1 ms, and so do 1 MB on the links."""

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


def share_of(*lines: str) -> tuple[float, float]:
    """(share of the bytes that overlaps, milliseconds exposed in one turn)."""
    found = overlap_of(PROGRAM.format(inside="\n".join(f"  {line}" for line in lines)), 2, CHIP)
    return found.share, 1e3 * found.exposed_seconds / 5


def line(form: str, name: str = "", rows: int = 1000) -> str:
    return form.format(name, rows // 2, rows).replace("{{", "{").replace("}}", "}")


BIG = 2000
"""Rows of an exchange that takes 2 ms: of 4 MB, half are the other device's."""


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
    ],
)  # fmt: skip
def test_a_collective_overlaps_if_the_products_between_start_and_done_take_as_long(lines, share, exposed):
    assert share_of(*lines) == pytest.approx((share, exposed))


def test_a_program_without_collectives_waits_for_none():
    assert share_of(line(DOT)) == (1.0, 0.0)
