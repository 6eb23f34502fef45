"""Manufacturers' figures for dense bfloat16 matrix products, by JAX's names of chips. Does not import JAX."""

TERA = 1e12

# Part of JAX's `device_kind` that identifies a chip -> FLOP/s of one JAX device. The first match counts, so specific
# names come before general ones. If a data sheet has only figures "with sparsity", half of them.
GPUS = {
    "B200": 2250 * TERA,  # NVIDIA's DGX B200 data sheet: 36 PFLOP/s with sparsity, of 8
    "H200 NVL": 835 * TERA,  # nvidia.com/en-us/data-center/h200: 1,671 with sparsity
    "H200": 989 * TERA,  # the same: 1,979 with sparsity
    "H100 PCIe": 756 * TERA,  # NVIDIA's H100 data sheet: 1,513 with sparsity
    "H100 NVL": 835 * TERA,  # the same: 1,671 with sparsity
    "H100": 989 * TERA,  # SXM, "NVIDIA H100 80GB HBM3"; the same: 1,979 with sparsity
    "A100": 312 * TERA,  # NVIDIA's A100 data sheet, SXM and PCIe
    "MI300X": 1307.4 * TERA,  # AMD's Instinct MI300X data sheet: 2,614.9 with sparsity
    "L40S": 362 * TERA,  # NVIDIA's L40S data sheet: 362.05, 733 with sparsity
    "L4": 121 * TERA,  # NVIDIA's L4 data sheet: 242 with sparsity
    "A10G": 70 * TERA,  # NVIDIA's A10G data sheet, of Amazon's g5: 140 with sparsity
    "V100": 125 * TERA,  # NVIDIA's V100 data sheet; fp16: it has no bfloat16
}

# docs.cloud.google.com/tpu/docs, the pages v2 to v6e and tpu7x, per chip. In v2, v3 and 7x a JAX device is one of the
# chip's two cores; in v4 and v5p it is both (jax/_src/tpu_info.py: "Megacore").
TPUS = {
    "TPU v2": 45 / 2 * TERA,
    "TPU v3": 123 / 2 * TERA,
    "TPU v4": 275 * TERA,
    "TPU v5 lite": 197 * TERA,
    "TPU v5e": 197 * TERA,
    "TPU v5": 459 * TERA,
    "TPU v5p": 459 * TERA,
    "TPU v6 lite": 918 * TERA,
    "TPU v6e": 918 * TERA,
    "TPU7x": 2307 / 2 * TERA,
}


def table_peak(device_kind: str) -> float | None:
    """bfloat16 FLOP/s of one JAX device, or None for a chip that is not in the tables."""
    if device_kind in TPUS:
        return TPUS[device_kind]
    words = f" {device_kind} ".replace("-", " ")  # "NVIDIA A100-SXM4-40GB"; whole words: a GB200 is not a B200
    return next((peak for name, peak in GPUS.items() if f" {name} " in words), None)
