"""Meshes, remat and micro-batches of a model on given hardware, the fastest by arithmetic first; the compiler says
which of them fit."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lm.config import REMAT, MeshConfig, ModelConfig, TrainConfig
from lm.devices import training_mesh_sizes
from lm.errors import UsageError
from lm.planner.compile import MANY_LAYERS, Compiler, say
from lm.planner.plan import Compile, Plan, as_devices, least_bytes, make_plan
from lm.planning.topology import GIB, Topology

SHARES = (1, 2, 4, 8, 16)
"""Devices along tensor and along context that are tried."""
ROOM = 0.9
"""Of a device's memory, which what arithmetic counts may fill: there is always more."""
LESS = 0.8
"""Of what a layout needs that did not fit: at most so much needs the next one that is tried."""
WANTED, MOST = 3, 8
"""Layouts that fit to be found, and programs to compile for it at most."""
TRIED = [name for name, policy in REMAT.items() if policy is None or not policy.offload]
"""Policies that are tried: how fast a host's memory is reached is not known here."""


@dataclass(frozen=True)
class Candidate:
    """One layout, and what arithmetic says of it."""

    model: ModelConfig
    train: TrainConfig
    least_bytes: int
    """That a device needs at least."""
    arithmetic: float
    """Seconds of a step's arithmetic at the chips' peak rate, with what is done again."""
    network: float
    """Seconds of a step's exchanges at the links' rated speed."""

    @property
    def seconds(self) -> float:
        """That a step takes at least."""
        return max(self.arithmetic, self.network)

    def options(self) -> list[str]:
        """The command line that asks for it."""
        mesh, train = self.train.mesh, self.train
        named = {
            "train.mesh.fsdp": mesh.fsdp, "train.mesh.tensor": mesh.tensor, "train.mesh.context": mesh.context,
            "train.micro-batches": train.micro_batches, "train.remat": train.remat,
            "model.scan-layers": self.model.scan_layers,
        }  # fmt: skip
        return [f"--{name} {value}" for name, value in named.items()]


def meshes(topology: Topology) -> Iterator[MeshConfig]:
    """Parameters are cut over none of the devices that tensor and context leave, or over all of them; over those of a
    slice, where there are several."""
    inside = topology.devices // topology.slices
    for tensor in SHARES:
        for context in SHARES:
            rest = inside // (tensor * context)
            if rest * tensor * context == inside:
                yield from (
                    MeshConfig(fsdp=fsdp, tensor=tensor, context=context) for fsdp in sorted({1, rest}, reverse=True)
                )


def candidates(model: ModelConfig, train: TrainConfig, topology: Topology) -> list[Candidate]:
    """All that the devices, the model and the batch allow, and whose least memory leaves room; the one with the least
    arithmetic and exchanges first, as if neither hid the other, and of equals the one that needs least memory."""
    scan = model.scan_layers or (model.layers >= MANY_LAYERS and model.layers_alike)
    model = dataclasses.replace(model, scan_layers=scan)
    devices, found = as_devices(topology), []
    for mesh in meshes(topology):
        rows = train.largest_batch // (topology.devices // (mesh.tensor * mesh.context))
        for micro in (2**power for power in range(rows.bit_length()) if rows % 2**power == 0):
            try:
                cut = dataclasses.replace(
                    train, mesh=mesh, micro_batches=micro, remat="none", remat_keep=(), remat_offload=(), layout=""
                )
                sizes = training_mesh_sizes(cut, model, devices)
            except UsageError:
                continue
            for remat in TRIED:
                own = dataclasses.replace(cut, remat=remat)
                least = least_bytes(model, own, sizes)
                if least <= ROOM * topology.device_memory:
                    arithmetic, network = least_seconds(model, own, topology, sizes)
                    found.append(Candidate(model, own, least, arithmetic, network))
    return sorted(found, key=lambda one: (one.arithmetic + one.network, one.least_bytes))


def least_seconds(
    model: ModelConfig, train: TrainConfig, topology: Topology, sizes: dict[str, int]
) -> tuple[float, float]:
    """(arithmetic, network) of a step, without a compiler. Weights and their gradients are counted in bfloat16,
    gathered forward and backward and reduced once a micro-batch."""
    from lm.planning.flops import flops_per_token, recomputed_flops_per_token  # which bring jax
    from lm.planning.memory import count_parameters

    chip, stage = topology.chip, train.stages(model.context_length).largest(train.steps)
    tokens, whole, model = stage.tokens, model, stage.model(model)
    again = recomputed_flops_per_token(model, train.remat_policy)
    parts = count_parameters(whole) / sizes["tensor"]
    own = tokens // (sizes["data"] * sizes["fsdp"] * sizes["context"])
    share = lambda size: (size - 1) / size
    seconds, devices = 0.0, 1
    for axis, moved in (  # from the innermost
        ("tensor", 4 * 2 * model.layers * 2 * own * model.width * share(sizes["tensor"])),  # the residual stream
        ("context", 3 * 2 * model.layers * 2 * model.kv_heads * model.head_channels * own * (sizes["context"] - 1)),
        ("fsdp", 3 * 2 * parts * stage.micro_batches * share(sizes["fsdp"] * sizes["context"])),
        ("data", 2 * 4 * parts / (sizes["fsdp"] * sizes["context"]) * share(sizes["data"])),
    ):
        devices *= sizes[axis]
        seconds += moved * chip.devices / axis_rate(topology, devices)
    return tokens * (flops_per_token(model) + again) / (topology.chips * chip.flops), seconds


def axis_rate(topology: Topology, devices: int) -> float:
    """Bytes/s of a chip's exchanges among so many devices: over all the links of its node or slice, else over the
    network, for which the chips of a node share what they have."""
    chip = topology.chip
    inside = topology.shape[-1] if not chip.torus else topology.devices // topology.slices
    if devices <= inside:
        return chip.link_rate
    return min(chip.link_rate, chip.network_rate * (inside if not chip.torus else 1))


def search(
    model: ModelConfig,
    train: TrainConfig,
    topology: Topology,
    compiler: Compile | None,
    **of_plan: Any,
) -> list[tuple[Candidate, Plan]]:
    """Those that fit, the fastest first: of TPUs by the compiler, of GPUs as far as arithmetic tells.

    Behind a layout that did not fit, only those that need clearly less are compiled. `of_plan` is as of make_plan.
    Raises UsageError where nothing fits.
    """
    if isinstance(compiler, Compiler):
        _ = compiler.devices  # libtpu has to be found before JAX starts
    found: list[tuple[Candidate, Plan]] = []
    tried, all_candidates = 0, candidates(model, train, topology)
    limit = math.inf
    for one in all_candidates:
        if len(found) == WANTED or tried == MOST:
            break
        if one.least_bytes > limit:
            continue
        if compiler is not None:
            tried += 1
            say(f"{tried} of at most {MOST}: {' '.join(one.options())}")
        plan = make_plan(one.model, one.train, topology, compiler, **of_plan)
        if plan.fits is False:
            limit = LESS * one.least_bytes
        else:
            found.append((one, plan))
    if not found:
        raise UsageError(nothing_fits(model, train, topology, len(all_candidates), tried))
    return sorted(found, key=lambda pair: pair[1].floors.step if pair[1].floors else pair[0].seconds)


def nothing_fits(model: ModelConfig, train: TrainConfig, topology: Topology, count: int, tried: int) -> str:
    whole = f"model.context_length = {model.context_length} and batches of {train.largest_batch} sequences"
    if not count:
        return (
            f"Nothing fits {topology.name}: with {whole}, no mesh divides the {topology.devices:,} devices and leaves "
            "room for the state. Take more chips, or another batch."
        )
    return (
        f"None of the {tried} layouts that were compiled for {topology.name} fits, with {whole}. Take more chips, or "
        "a model that is smaller."
    )


def search_json(found: Sequence[tuple[Candidate, Plan]]) -> list[dict[str, Any]]:
    """The plans, each with its options."""
    return [{"options": one.options()} | plan.as_json() for one, plan in found]


def search_text(found: Sequence[tuple[Candidate, Plan]], topology: Topology) -> str:
    """Two lines a layout."""
    lines, has = [], topology.device_memory
    for number, (one, plan) in enumerate(found, 1):
        held = plan.needed_bytes or one.least_bytes
        sure = "fits" if plan.fits else "may fit"
        step = f"a step takes at least {plan.floors.step if plan.floors else one.seconds:.3g} s"
        bound = f", MFU at most {100 * plan.floors.mfu_bound:.0f} %" if plan.floors else ""
        lines += [
            f"{number}. {sure}, {held / GIB:,.2f} of {has / GIB:,.2f} GiB; {step}{bound}",
            f"   {' '.join(one.options())}",
        ]
    return "\n".join(lines)
