"""Hardware names as the clouds use them, and lower bounds on time from rated speeds."""

import pytest

from lm.errors import UsageError
from lm.metrics.hardware import GPUS, TPUS
from lm.planner.hlo import BETWEEN_SLICES, Collective
from lm.planner.plan import floors, flops_in
from lm.planner.topology import CHIPS, topology_of


@pytest.mark.parametrize(
    ("name", "canonical", "chips", "devices"),
    [
        ("v5e:4x4", "v5e:4x4", 16, 16), ("v5e-16", "v5e:4x4", 16, 16), ("v5litepod-8", "v5e:2x4", 8, 8),
        ("v5p-512", "v5p:4x8x8", 256, 256), ("v5p:4x4x2", "v5p:4x4x2", 32, 32), ("v4-8", "v4:2x2x1", 4, 4),
        ("2xv6e-256", "2xv6e:16x16", 512, 512), ("Trillium-8", "v6e:2x4", 8, 8),
        ("ironwood:4x4x4", "tpu7x:4x4x4", 64, 128), ("h100:32", "h100:32", 32, 32), ("h100", "h100:1", 1, 1),
        ("8xh100", "h100:8", 8, 8), (" B200-16 ", "b200:16", 16, 16),
        ("A100:8", "a100:8", 8, 8), ("l40s", "l40s:1", 1, 1), ("mi300x-64", "mi300x:64", 64, 64),
    ],
)  # fmt: skip
def test_names_of_hardware(name, canonical, chips, devices):
    found = topology_of(name)
    assert (found.name, found.chips, found.devices) == (canonical, chips, devices)
    assert topology_of(canonical) == found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v6:2x2", "Did you mean v6e"), ("", "There is no topology ''"), ("v5p-7", "counts cores, 2 to a chip"),
        ("v5e:3x3", "4x4"), ("v5e:4x4x4", "a shape that v5e lacks"),
        ("h100:12", "a multiple of 8"), ("h100:0", "asks for 0 GPUs"),
        ("h100:2x2", "a shape; for GPUs, give"), ("v5e", "no slice"),
        ("tpu" * 5000, "There is no topology"), ("0xv5e-4", "There is no topology"), ("v5e:4xx4", "no topology"),
        ("v5e:x4x4", "There is no topology"), ("v5e-" + "9" * 5000, "There is no topology"),
        ("v4-12288", "There is no slice"), ("v5p-512x", "There is no topology"), ("3xh100:4", "12 GPUs"),
    ],
)  # fmt: skip
def test_unknown_hardware_is_rejected_with_the_available_names(name, words):
    with pytest.raises(UsageError) as refused:
        topology_of(name)
    assert words in str(refused.value) and len(str(refused.value)) < 800


def test_the_tables_agree():
    """Peak rates are those of the MFU."""
    kinds = {"v4": "TPU v4", "v5e": "TPU v5e", "v5p": "TPU v5p", "v6e": "TPU v6e", "tpu7x": "TPU7x"}
    for name, chip in CHIPS.items():
        known = TPUS[kinds[name]] * chip.devices if chip.torus else GPUS[name.upper()]
        assert chip.flops == known


def test_lower_bounds_follow_from_the_rates():
    slice_, chip = topology_of("v5e:4x4"), CHIPS["v5e"]
    gathered = Collective("all-gather", 16 * 10**9, 16, 1, "", "")
    found = floors(slice_, 16 * 197 * 10**12 * 3, 819 * 10**9, [gathered])
    assert (found.arithmetic, found.memory) == (pytest.approx(3), pytest.approx(2))
    assert found.network == pytest.approx(15e9 / chip.link_rate)
    assert (found.step, found.limit, found.mfu_bound) == (found.arithmetic, "arithmetic", 1.0)
    waiting = floors(slice_, 16 * 197 * 10**12, 819 * 10**9, [])
    assert (waiting.limit, waiting.mfu_bound) == ("memory", pytest.approx(0.5))


def test_traffic_between_slices_uses_the_speed_of_the_network():
    inside, between = (Collective(kind, 10**9, 256, 2, "", "") for kind in ("all-reduce", BETWEEN_SLICES))
    two = topology_of("2xv6e:16x16")
    assert floors(two, 1, 1, [inside]).network == pytest.approx(2 * 2e9 * 255 / 256 / two.chip.link_rate)
    assert floors(two, 1, 1, [between]).network == pytest.approx(2e9 / two.chip.network_rate)


def test_days_of_a_published_run():
    """llm.c trained GPT-2 1.6B on 33.6 B tokens in 24 hours on eight H100 (discussion 677); its MFU was about 50 %."""
    flops = (6 * 1_557_611_200 + 12 * 48 * 1600 * 1024) * 33.6e9
    assert flops / flops_in(topology_of("h100:8"), 1, 0.5) == pytest.approx(1, rel=0.1)
