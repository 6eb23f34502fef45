"""Peak rates of chips, to compare a model's FLOP/s with (MFU, arXiv:2204.02311, appendix B).

For accelerators these are the manufacturers' figures for dense bfloat16 matrix products. CPUs have no such figure: a
matrix product is timed instead, which other work on the machine slows down, so the ratio is not called MFU.
"""

import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lm.config import ModelConfig

# Part of JAX's `device_kind` that identifies a chip -> FLOP/s of one JAX device. The first match counts, so specific
# names come before general ones. If a data sheet has only figures "with sparsity", half of them.
GPUS = {
    "B200": 2250e12,  # NVIDIA's DGX B200 data sheet: 36 PFLOP/s with sparsity, of 8
    "H200 NVL": 835e12,  # nvidia.com/en-us/data-center/h200: 1,671 with sparsity
    "H200": 989e12,  # the same: 1,979 with sparsity
    "H100 PCIe": 756e12,  # NVIDIA's H100 data sheet: 1,513 with sparsity
    "H100 NVL": 835e12,  # the same: 1,671 with sparsity
    "H100": 989e12,  # SXM, "NVIDIA H100 80GB HBM3"; the same: 1,979 with sparsity
    "A100": 312e12,  # NVIDIA's A100 data sheet, SXM and PCIe
    "MI300X": 1307.4e12,  # AMD's Instinct MI300X data sheet: 2,614.9 with sparsity
    "L40S": 362e12,  # NVIDIA's L40S data sheet: 362.05, 733 with sparsity
    "L4": 121e12,  # NVIDIA's L4 data sheet: 242 with sparsity
    "A10G": 70e12,  # NVIDIA's A10G data sheet, of Amazon's g5: 140 with sparsity
    "V100": 125e12,  # NVIDIA's V100 data sheet; fp16: it has no bfloat16
}

# docs.cloud.google.com/tpu/docs, the pages v2 to v6e and tpu7x, per chip. In v2, v3 and 7x a JAX device is one of the
# chip's two cores; in v4 and v5p it is both (jax/_src/tpu_info.py: "Megacore").
TPUS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
}


def table_peak(device_kind: str) -> float | None:
    """Return the bfloat16 FLOP/s of one JAX device, of a kind such as "TPU v5 lite"; None if not in the tables."""
    if device_kind in TPUS:
        return TPUS[device_kind]
    words = f" {device_kind} ".replace("-", " ")  # "NVIDIA A100-SXM4-40GB"; whole words: a GB200 is not a B200
    return next((peak for name, peak in GPUS.items() if f" {name} " in words), None)


@dataclass(frozen=True)
class Peak:
    """Peak FLOP/s of all devices, by which the FLOP/s of a training step are divided."""

    rate: float | None
    """FLOP/s of all devices together; None if unknown."""
    meaning: str
    """Description of the rate, or why it is unknown."""
    metric: Literal["mfu", "cpu_matmul_share"] = "mfu"
    """Key in metrics.jsonl of FLOP/s divided by `rate`."""


def peak_rate(devices: Sequence[Any], model: ModelConfig, rows: int) -> Peak:
    """Return the peak FLOP/s of `devices`, which are all of one kind.

    On a CPU, it is measured with matrix products of the model's shapes, with up to `rows` rows.
    """
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        rate = matmul_peak(model, rows, seconds=0.05, most_flop=5e8)
        meaning = (
            f"this CPU's best matrix product of the model's shapes, measured just now, reaches {rate / 1e9:,.0f} "
            "GFLOP/s; cpu_matmul_share in metrics.jsonl is relative to that (other work on the machine affects both)"
        )
        return Peak(rate, meaning, "cpu_matmul_share")
    peak, why = table_peak(kind), f'lm/metrics/hardware.py has no "{kind}". Add its rate in bfloat16 there'
    if model.compute_dtype != "bfloat16":
        peak = None
        why = f"lm/metrics/hardware.py has rates in bfloat16, and model.compute_dtype = {model.compute_dtype}"
    if peak is None:
        return Peak(None, f"MFU is not shown, because the peak rate is unknown: {why}")
    return Peak(
        peak * len(devices),
        f"MFU is relative to {peak / 1e12:,.0f} TFLOP/s per device, the vendor's bfloat16 rate of {kind}",
    )


def median_seconds(run: Callable[[], object], seconds: float) -> float:
    """Return the median seconds of a call of `run`, repeated for about `seconds` after three warm-up calls."""
    for _ in range(3):
        run()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 3:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


@functools.cache
def matmul_peak(model: ModelConfig, rows: int, seconds: float = 0.5, most_flop: float = math.inf) -> float:
    """Measure and return the highest FLOP/s of four matrix products: QKV, MLP up and down projection, output layer.

    Each is repeated for about `seconds` in the model's compute dtype. The input has `rows` rows, or fewer, so that a
    product needs at most `most_flop` FLOP.
    """
    import jax
    import jax.numpy as jnp

    product = jax.jit(lambda x_ND, w_DF: x_ND @ w_DF)
    heads = (model.heads + 2 * model.kv_heads) * model.head_channels
    rates = []
    for inner, outer in (
        (model.width, heads),
        (model.width, model.mlp_width),
        (model.mlp_width, model.width),
        (model.width, model.vocab_size),
    ):
        taken = max(1, int(min(rows, most_flop / (2 * inner * outer))))
        x_ND, w_DF = jnp.ones((taken, inner), model.compute_dtype), jnp.ones((inner, outer), model.compute_dtype)
        median = median_seconds(lambda x=x_ND, w=w_DF: jax.block_until_ready(product(x, w)), seconds)
        rates.append(2 * taken * inner * outer / median)
    return max(rates)
