"""A plan as readable text, with suggestions if the run does not fit."""

import math

from lm.config import ModelConfig, TrainConfig
from lm.planner.compile import SAMPLE
from lm.planner.plan import HOURS, Plan, as_devices
from lm.planner.topology import GIB
from lm.terminal import counted, quantity
from lm.training.memory import training_bytes


def gib(value: float) -> str:
    return f"{value / GIB:,.2f} GiB"


def in_words(number: float) -> str:
    """Format a number as "15 trillion", "9.99 billion" or "800"."""
    for size, name in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million"), (1, "")):
        if number >= size:
            return f"{number / size:,.3g}{name}"
    return f"{number:.3g}"


def ratio_text(ratio: float) -> str:
    """Format a ratio as "1,160", "33" or "0.45"."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def time_text(days: float) -> str:
    """Format a duration in days as "45 minutes", "7.5 hours" or "107 days"."""
    hours = days * HOURS
    if hours < 1:
        return f"{60 * hours:.2g} minutes"
    return f"{hours:.1f} hours" if days < 2 else f"{days:,.1f} days" if days < 100 else f"{days:,.0f} days"


def plan_text(plan: Plan, model: ModelConfig, train: TrainConfig) -> str:
    """Format a plan for the terminal: exposed communication, whether it fits, lower bounds of a step, time and cost."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    chip = plan.topology.chip
    cost = "no price in configs/recipes/prices.py"
    if plan.dollars is not None:
        cost = f"{plan.dollars:,.2f} dollars" if plan.dollars < 10 else f"{plan.dollars:,.0f} dollars"
    moved, bounds = [], []
    if plan.compiled is not None and plan.compiled.collectives:
        each = [f"{kind} {gib(size)} in {count:,}" for kind, (size, count) in plan.compiled.exchanged().items()]
        largest = plan.compiled.collectives[0]
        moved = [
            f"communication of a device in a step: {', '.join(each)}",
            f"the largest: {largest.kind} of {largest.type}, {counted(largest.times, 'time')}, over "
            f"{counted(largest.group, 'device')}",
        ]
    if (one := plan.floors) is not None:
        bounds = [
            f"a step takes at least {one.step:.3g} s: arithmetic {one.arithmetic:.3g} s, memory {one.memory:.3g} s, "
            f"network {one.network:.3g} s at rated speeds. So MFU is at most {100 * one.mfu_bound:.0f} % (limited by "
            f"{one.limit}); no run reaches this bound"
        ]
    exposed = []
    if plan.compiled is not None and plan.floors is not None and plan.compiled.overlap.bytes:
        from lm.training.aot_compile import options_of  # imports JAX

        one, program = plan.floors, plan.compiled
        options = options_of(train.xla_options, as_devices(plan.topology).target.platform)
        used = f"with {counted(len(options), 'option')} of" if options else "without"
        exposed = [
            f"exposed communication: {100 * one.exposed_share:.2g} % of the least time of a step ({one.exposed:.3g} of "
            f"{one.step:.3g} s), so MFU is at most {100 * one.scheduled_mfu_bound:.0f} %; "
            f"{100 * program.overlap.share:.0f} % of the bytes sent overlap with computation; compiled in "
            f"{program.compile_seconds:.0f} s {used} train.xla_options"
        ]
    lines = [
        *exposed,
        f"{plan.topology.name}: {counted(plan.topology.chips, 'chip' if chip.torus else 'GPU')}, "
        f"{quantity(chip.flops, 'FLOP/s')} each; mesh {mesh}; remat {train.remat}, layers "
        f"{'as one scan' if model.scan_layers else 'one by one'}, "
        f"micro-batches {train.stages(model.context_length).largest(train.steps).micro_batches}",
        f"{counted(plan.parameters, 'parameter')}; {counted(plan.tokens_per_step, 'token')} a step, "
        f"{quantity(plan.flops_per_token * plan.tokens_per_step, 'FLOP')}"
        + ("" if any(one.startswith("attention by") for one in plan.remarks) else f"; attention by {plan.attention}"),
        *plan.remarks,
        *memory_lines(plan, model, train),
        *moved,
        *bounds,
        f"{in_words(plan.tokens)} tokens, {ratio_text(plan.tokens / plan.parameters)} a parameter, in "
        f"{counted(plan.steps, 'step')}; at {100 * plan.mfu:g} % MFU (stated, not forecast): {time_text(plan.days)}, "
        + cost,
    ]
    return "\n".join(lines)


def memory_lines(plan: Plan, model: ModelConfig, train: TrainConfig) -> list[str]:
    """Return lines that say whether the run fits into a device: with the free memory, or with what would help."""
    has = plan.topology.device_memory
    if plan.fits is None and plan.needed_bytes is not None:
        return [
            f"may fit: a device holds at least {gib(plan.needed_bytes)} of {gib(has)}; activations inside blocks, "
            "logits and copies are not counted"
        ]
    if plan.fits and plan.compiled is not None:
        one = plan.compiled
        parts = [
            f"{gib(one.argument_bytes)} of state and batch", f"{gib(one.temporary_bytes)} of temporary values"
        ]  # fmt: skip
        rest = one.peak_bytes - one.argument_bytes - one.temporary_bytes
        parts += [f"{gib(rest)} of the compiler's own"] if rest > 0.01 * GIB else []
        margin = 100 * (1 - (plan.needed_bytes or 0) / has)
        lines = [f"fits: a device holds {gib(one.peak_bytes)} ({', '.join(parts)}) of {gib(has)}"]
        others = [f"{name} {gib(held)}" for name, held in one.also_held.items()]
        lines += [f"outside of steps: {', '.join(others)}"] if others else []
        lines[-1] += f"; {margin:.0f} % are free"
        return lines
    needed = "more than that" if plan.needed_bytes is None else f"at least {gib(plan.needed_bytes)}"
    lines = [f"does not fit: a device has {gib(has)}, and {plan.needed_for} needs {needed}. What helps:"]
    return lines + [f"  {one}" for one in advice(plan, model, train)]


def advice(plan: Plan, model: ModelConfig, train: TrainConfig) -> list[str]:
    """Return suggestions for a plan that does not fit, each with its option, such as "--train.mesh.fsdp 8: ..."."""
    needed, has = training_bytes(model, train), plan.topology.device_memory
    state = sum(needed[name] for name in ("parameters", "moments", "gradients"))
    mesh, devices = plan.mesh, plan.topology.devices
    cut = mesh["fsdp"] * mesh["context"] * mesh["tensor"]
    rest = devices // (mesh["tensor"] * mesh["context"])
    whole = f"--train.mesh.fsdp {rest}: parameters and moments are sharded over all devices"
    if state / cut > has:
        if cut < devices and state / devices <= has:
            return [whole]
        least = math.ceil(state / has)
        return [
            f"more chips: only parameters, moments and gradients are {state / GIB:,.0f} GiB, so at least {least:,} "
            "such devices, each with a part (--train.mesh.fsdp)"
        ]
    if plan.needed_for == SAMPLE:
        return [
            f"--train.sample-tokens below {train.sample_tokens}, or --train.sample-every 0: no samples during training"
        ]
    found = []
    if train.remat == "none":
        found.append("--train.remat full: activations inside a block are recomputed in the backward pass")
    stage = train.stages(model.context_length).largest(train.steps)
    rows = stage.windows // (mesh["data"] * mesh["fsdp"] * stage.micro_batches)
    if rows > 1:
        parts = rows * train.micro_batches
        found.append(f"--train.micro-batches {parts}: now {rows} sequences per device are computed at once")
    if plan.topology.chip.torus and not model.scan_layers and model.layers_alike:
        found.append("--model.scan-layers True: one block's memory is free before the next")
    if plan.topology.chip.torus and model.context_length % (2 * train.loss_chunks) == 0:
        found.append(f"--train.loss-chunks {2 * train.loss_chunks}: fewer logits at a time")
    if mesh["data"] > 1:
        if not train.mesh.zero1 and model.width % (mesh["data"] * mesh["fsdp"] * mesh["context"]) == 0:
            found.append(f"--train.mesh.zero1 True: moments are sharded over data, too, {mesh['data']} devices")
        found.append(whole)
    return found or ["more chips, or chips with more memory (--topology)"]
