"""Suggest changes if a run does not fit."""

import math

from lm.config import ModelConfig, TrainConfig
from lm.planner.compile import SAMPLE
from lm.planner.plan import Plan
from lm.planning.topology import GIB
from lm.training.memory import training_bytes


def advice(plan: Plan, model: ModelConfig, train: TrainConfig) -> list[str]:
    """Return suggestions with their options. If the state by itself is too large, only more devices help."""
    needed, has = training_bytes(model, train), plan.topology.device_memory
    state = sum(needed[name] for name in ("parameters", "moments", "gradients"))
    mesh, devices = plan.mesh, plan.topology.devices
    cut = mesh["fsdp"] * mesh["context"] * mesh["tensor"]
    rest = devices // (mesh["tensor"] * mesh["context"])
    whole = f"--train.mesh.fsdp {rest}: parameters and moments are cut over all devices"
    if state / cut > has:
        if cut < devices and state / devices <= has:
            return [whole]
        least = math.ceil(state / has)
        return [
            f"more chips: parameters, moments and gradients alone are {state / GIB:,.0f} GiB, so at least {least:,} "
            "such devices, each with a part (--train.mesh.fsdp)"
        ]
    if plan.needed_for == SAMPLE:
        return [f"--train.sample-tokens below {train.sample_tokens}, or --train.sample-every 0: no samples meanwhile"]
    found = within_a_device(plan, model, train)
    if plan.mesh["data"] > 1:
        if not train.mesh.zero1 and model.width % (plan.mesh["data"] * mesh["fsdp"] * mesh["context"]) == 0:
            found.append(f"--train.mesh.zero1 True: moments are cut over data, too, {plan.mesh['data']} devices")
        found.append(whole)
    return found or ["more chips, or chips with more memory (--topology)"]


def within_a_device(plan: Plan, model: ModelConfig, train: TrainConfig) -> list[str]:
    """Suggestions that reduce temporary memory. If no program is compiled, only those that the estimate accounts
    for."""
    found = []
    if train.remat == "none":
        found.append("--train.remat full: what is inside a block is computed again in the backward pass")
    stage = train.stages(model.context_length).largest(train.steps)
    rows = stage.windows // (plan.mesh["data"] * plan.mesh["fsdp"] * stage.micro_batches)
    if rows > 1:
        parts = rows * train.micro_batches
        found.append(f"--train.micro-batches {parts}: {rows} sequences a device are computed at once now")
    if plan.topology.chip.torus and not model.scan_layers and model.layers_alike:
        found.append("--model.scan-layers True: one block's memory is free before the next")
    if plan.topology.chip.torus and model.context_length % (2 * train.loss_chunks) == 0:
        found.append(f"--train.loss-chunks {2 * train.loss_chunks}: fewer logits at a time")
    return found
