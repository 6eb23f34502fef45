"""Peak rates: JAX's device names map to the right chip, and unknown chips are reported."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest

from lm.metrics.hardware import matmul_peak, peak_rate, table_peak
from tests.lm.model_configs import LLAMA

BFLOAT16 = dataclasses.replace(LLAMA, compute_dtype="bfloat16")


def devices(kind: str, count: int = 1, platform: str = "gpu") -> list[SimpleNamespace]:
    return [SimpleNamespace(device_kind=kind, platform=platform)] * count


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("NVIDIA A100-SXM4-40GB", 312), ("NVIDIA A100 80GB PCIe", 312), ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835), ("NVIDIA H200", 989), ("NVIDIA B200", 2250),
        ("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("AMD Instinct MI300X", 1307.4), ("NVIDIA A10G", 70),
        ("Tesla V100-SXM2-16GB", 125), ("TPU v2", 22.5), ("TPU v3", 61.5), ("TPU v4", 275), ("TPU v5 lite", 197),
        ("TPU v5", 459), ("TPU v6 lite", 918), ("TPU7x", 1153.5),
    ],
)  # fmt: skip
def test_device_names_of_jax_map_to_their_chip(kind, tera):
    assert table_peak(kind) == tera * 1e12


@pytest.mark.parametrize(
    "kind", ["NVIDIA L40", "AMD Instinct MI300A", "NVIDIA A10", "NVIDIA GB200", "TPU v4 lite", "TPU v9", "", "cpu"]
)
def test_a_chip_with_a_similar_name_is_unknown(kind):
    assert table_peak(kind) is None


def test_the_rates_of_devices_add_up():
    peak = peak_rate(devices("NVIDIA H100 80GB HBM3", 8), BFLOAT16, 4096)
    assert (peak.rate, peak.metric) == (8 * 989e12, "mfu")
    assert "989 TFLOP/s per device" in peak.meaning


@pytest.mark.parametrize(
    ("kind", "model", "words"),
    [
        ("NVIDIA H300", BFLOAT16, ["MFU is not shown", '"NVIDIA H300"', "lm/metrics/hardware.py"]),
        ("NVIDIA H200", LLAMA, ["MFU is not shown", "bfloat16", "compute_dtype = float32"]),
    ],
)
def test_an_unknown_rate_is_reported_with_the_reason(kind, model, words):
    peak = peak_rate(devices(kind), model, 4096)
    assert peak.rate is None
    assert all(word in peak.meaning for word in words)


def test_cpu_devices_share_one_measurement_which_is_not_called_mfu(monkeypatch):
    monkeypatch.setattr("lm.metrics.hardware.matmul_peak", lambda *_, **__: 5e10)
    one = peak_rate(jax.devices()[:1], LLAMA, 64)
    assert peak_rate(jax.devices(), LLAMA, 64) == one and one.rate == 5e10 and one.metric == "cpu_matmul_share"
    assert "50 GFLOP/s" in one.meaning and "measured" in one.meaning and "MFU" not in one.meaning


def test_the_measured_rate_is_flop_per_second(monkeypatch):
    """2 FLOP for each of rows x inner x outer; rows are limited by most_flop, but at least one."""
    shapes = []

    def stopped(run, seconds):
        shapes.append(run.__defaults__)
        return 1.0

    monkeypatch.setattr("lm.metrics.hardware.median_seconds", stopped)
    assert matmul_peak(LLAMA, 100, 0.1) == 2 * 100 * 32 * 64  # the largest of its products, at one second each
    assert [(x.shape, w.shape) for x, w in shapes] == [
        ((100, 32), (32, 64)),  # 4 query heads, 2 key heads and 2 value heads, each of 8 channels
        ((100, 32), (32, 48)),
        ((100, 48), (48, 32)),
        ((100, 32), (32, 64)),
    ]
    assert matmul_peak(LLAMA, 100, 0.1, most_flop=10 * 2.0 * 32 * 64) == 10 * 2 * 32 * 64
    assert matmul_peak(LLAMA, 100, 0.1, most_flop=1.0) == 2 * 32 * 64
