"""A plan as people read it."""

from lm.config import ModelConfig, TrainConfig
from lm.planner.plan import Plan, advice, device_bytes
from lm.terminal import quantity

GIB = 2**30


def gib(value: float) -> str:
    return f"{value / GIB:,.2f} GiB"


def plan_text(plan: Plan, model: ModelConfig, train: TrainConfig) -> str:
    """Several lines: whether it fits, what is moved, what bounds the step, how long it takes."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    chip = plan.topology.chip
    lines = [
        f"{plan.topology.name}: {plan.topology.chips:,} chips, {quantity(chip.flops, 'FLOP/s')} each; mesh {mesh}; "
        f"remat {train.remat}, {'layers as one scan' if model.scan_layers else 'layers one by one'}, "
        f"{train.micro_batches} micro-batches",
        f"{plan.parameters:,} parameters; {plan.tokens_per_step:,} tokens a step, "
        f"{quantity(plan.flops_per_token * plan.tokens_per_step, 'FLOP')}; attention by {plan.attention}",
        *plan.remarks,
        *memory_lines(plan, model, train),
        *exchange_lines(plan),
        *bound_lines(plan),
        f"{quantity(plan.tokens, 'tokens')} at {100 * plan.mfu:.0f} % MFU (stated, not forecast): {plan.days:,.1f} days"
        + (f", {plan.dollars:,.0f} dollars" if plan.dollars is not None else ""),
    ]
    return "\n".join(lines)


def memory_lines(plan: Plan, model: ModelConfig, train: TrainConfig) -> list[str]:
    """Whether the step fits into a device, by how much, and else what to change."""
    has = device_bytes(plan.topology)
    if plan.fits and plan.needed_bytes is not None:
        parts = ""
        if plan.compiled:
            state, temporary = gib(plan.compiled.argument_bytes), gib(plan.compiled.temporary_bytes)
            parts = f" ({state} of state and batch, {temporary} of temporary values)"
        margin = 100 * (1 - plan.needed_bytes / has)
        held = f"{gib(plan.needed_bytes)} at {'most' if plan.compiled else 'least'}{parts}"
        return [f"fits: a device holds {held} of {gib(has)}: {margin:.0f} % are free"]
    needed = "more than a device has" if plan.needed_bytes is None else f"at least {gib(plan.needed_bytes)}"
    lines = [f"does not fit: a step needs {needed}, and a device has {gib(has)}. What makes it smaller:"]
    return lines + [f"  {one}" for one in advice(plan, model, train)]


def exchange_lines(plan: Plan) -> list[str]:
    """What a device exchanges in a step, by kind, and the largest."""
    if plan.compiled is None or not plan.compiled.collectives:
        return []
    made = plan.compiled.collectives
    kinds = sorted({one.kind for one in made})
    total = lambda kind: (sum(one.bytes * one.times for one in made if one.kind == kind),
                          sum(one.times for one in made if one.kind == kind))  # fmt: skip
    each = ", ".join(f"{kind} {gib(total(kind)[0])} in {total(kind)[1]:,}" for kind in kinds)
    largest = made[0]
    return [
        f"exchanges of a device in a step: {each}",
        f"the largest: {largest.kind} of {largest.type} {largest.times:,} times, over {largest.group} devices",
    ]


def bound_lines(plan: Plan) -> list[str]:
    """The floors of a step's time."""
    if plan.floors is None:
        return []
    one = plan.floors
    return [
        f"a step takes at least {one.step:.3g} s: arithmetic {one.arithmetic:.3g} s, memory {one.memory:.3g} s, "
        f"network {one.network:.3g} s at rated speeds. So MFU is at most {100 * one.mfu_bound:.0f} %, a bound "
        f"that {one.limit} sets and no run reaches"
    ]
