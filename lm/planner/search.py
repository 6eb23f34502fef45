"""Search meshes, remat policies and micro-batches for a model on given hardware. Candidates are ranked by an analytical
estimate; the compiler determines which ones fit."""

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
from lm.planner.topology import GIB, Topology

SHARES = (1, 2, 4, 8, 16)
"""Sizes of the tensor and context axes to try."""
ROOM = 0.9
"""Fraction of a device's memory that the estimate may use: the real need is always higher."""
LESS = 0.8
"""After a layout that does not fit, candidates must need at most this fraction of its estimate."""
WANTED, MOST = 3, 8
"""Number of fitting layouts to find, and maximum number of programs to compile for that."""
TRIED = [name for name, policy in REMAT.items() if policy is None or not policy.offload]
"""Remat policies to try. Offloading is excluded: the speed of host memory is not known here."""


@dataclass(frozen=True)
class Candidate:
    """A layout (mesh, remat policy, micro-batches, scanned layers) with estimates of its memory and time."""

    model: ModelConfig
    train: TrainConfig
    least_bytes: int
    """Lower bound on a device's memory."""
    arithmetic: float
    """Seconds per step of all FLOPs at the chips' peak rate, including recomputation."""
    network: float
    """Seconds per step of communication at the links' rated speed."""

    @property
    def seconds(self) -> float:
        """Lower bound on the seconds per step."""
        return max(self.arithmetic, self.network)

    def options(self) -> list[str]:
        """Return the command-line options that choose this layout, such as "--train.mesh.fsdp 8"."""
        mesh, train = self.train.mesh, self.train
        named = {
            "train.mesh.fsdp": mesh.fsdp, "train.mesh.tensor": mesh.tensor, "train.mesh.context": mesh.context,
            "train.micro-batches": train.micro_batches, "train.remat": train.remat,
            "model.scan-layers": self.model.scan_layers,
        }  # fmt: skip
        return [f"--{name} {value}" for name, value in named.items()]


def meshes(topology: Topology) -> Iterator[MeshConfig]:
    """Yield meshes to consider: for each tensor and context size, fsdp of 1 and of all other devices of a slice."""
    inside = topology.devices // topology.slices
    for tensor in SHARES:
        for context in SHARES:
            rest = inside // (tensor * context)
            if rest * tensor * context == inside:
                yield from (
                    MeshConfig(fsdp=fsdp, tensor=tensor, context=context) for fsdp in sorted({1, rest}, reverse=True)
                )


def candidates(model: ModelConfig, train: TrainConfig, topology: Topology) -> list[Candidate]:
    """Return all layouts that devices, model and batch allow and whose estimated memory leaves room, fastest first:
    sorted by arithmetic plus network time, then by memory."""
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
    """Estimate (arithmetic, network) seconds of a step without a compiler. `sizes` are the mesh axes. Weights are
    assumed to be gathered in the forward and the backward pass, and gradients reduced, in bfloat16, once per
    micro-batch."""
    from lm.model.cost import count_parameters, flops_per_token, recomputed_flops_per_token  # they import JAX

    chip, stage = topology.chip, train.stages(model.context_length).largest(train.steps)
    tokens, whole, model = stage.tokens, model, stage.model(model)
    again = recomputed_flops_per_token(model, train.remat_policy)
    parts = count_parameters(whole) / sizes["tensor"]
    own = tokens // (sizes["data"] * sizes["fsdp"] * sizes["context"])
    share = lambda size: (size - 1) / size
    inside = topology.devices // topology.slices if chip.torus else topology.shape[-1]  # a slice, or a node of GPUs
    outside_rate = min(chip.link_rate, chip.network_rate * (1 if chip.torus else inside))  # a node shares its network
    seconds, devices = 0.0, 1
    for axis, moved in (  # from the innermost
        ("tensor", 4 * 2 * model.layers * 2 * own * model.width * share(sizes["tensor"])),  # the residual stream
        ("context", 3 * 2 * model.layers * 2 * model.kv_heads * model.head_channels * own * (sizes["context"] - 1)),
        ("fsdp", 3 * 2 * parts * stage.micro_batches * share(sizes["fsdp"] * sizes["context"])),
        ("data", 2 * 4 * parts / (sizes["fsdp"] * sizes["context"]) * share(sizes["data"])),
    ):
        devices *= sizes[axis]
        seconds += moved * chip.devices / (chip.link_rate if devices <= inside else outside_rate)
    return tokens * (flops_per_token(model) + again) / (topology.chips * chip.flops), seconds


def search(
    model: ModelConfig, train: TrainConfig, topology: Topology, compiler: Compile | None, **of_plan: Any
) -> list[tuple[Candidate, Plan]]:
    """Return up to WANTED layouts that fit, fastest first. `compiler` verifies that they fit; without it, the estimates
    decide.

    After a layout that does not fit, only those that need clearly less are compiled. `of_plan` are further arguments of
    make_plan. Raises UsageError if nothing fits.
    """
    if isinstance(compiler, Compiler):
        _ = compiler.devices  # libtpu must be loaded before JAX starts
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
    whole = f"model.context_length = {model.context_length} and batches of {train.largest_batch} sequences"
    if not all_candidates:
        raise UsageError(
            f"Nothing fits {topology.name}: with {whole}, no mesh divides the {topology.devices:,} devices and leaves "
            "room for the state. Use more chips, or another batch size."
        )
    if not found:
        raise UsageError(
            f"None of the {tried} layouts that were compiled for {topology.name} fits, with {whole}. Use more chips, "
            "or a smaller model."
        )
    return sorted(found, key=lambda pair: pair[1].floors.step if pair[1].floors else pair[0].seconds)


def search_text(found: Sequence[tuple[Candidate, Plan]], topology: Topology) -> str:
    """Format the found layouts for the terminal, two lines each."""
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
