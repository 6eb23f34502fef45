"""What clouds call hardware: the published tables, row by row."""

import pytest

from launch.cloud import names
from lm.errors import UsageError
from lm.planning.topology import CHIPS, topology_of


@pytest.mark.parametrize(
    ("topology", "accelerator_type", "gke", "shape", "slices", "hosts", "chips"),
    [
        # docs.cloud.google.com/tpu/docs/v5e, v6e, v5p, v4: types, shapes and hosts of their tables
        ("v5e:2x2", "v5litepod-4", "tpu-v5-lite-podslice", "2x2", 1, 1, 4),
        ("v5e-8", "v5litepod-8", "tpu-v5-lite-podslice", "2x4", 1, 1, 8),
        ("v5e:4x4", "v5litepod-16", "tpu-v5-lite-podslice", "4x4", 1, 4, 4),
        ("v6e:2x4", "v6e-8", "tpu-v6e-slice", "2x4", 1, 1, 8),
        ("v6e-1", "v6e-1", "tpu-v6e-slice", "1x1", 1, 1, 1),
        ("2xv6e-256", "v6e-256", "tpu-v6e-slice", "16x16", 2, 128, 4),
        ("v5p-8", "v5p-8", "tpu-v5p-slice", "2x2x1", 1, 1, 4),
        ("v5p:4x4x2", "v5p-64", "tpu-v5p-slice", "2x4x4", 1, 8, 4),
        ("v5p-512", "v5p-512", "tpu-v5p-slice", "4x8x8", 1, 64, 4),
        ("v4-32", "v4-32", "tpu-v4-podslice", "2x2x4", 1, 4, 4),
        ("ironwood:4x4x4", "tpu7x-128", "tpu7x", "4x4x4", 1, 16, 4),
    ],
)
def test_tpus(topology, accelerator_type, gke, shape, slices, hosts, chips):
    found = topology_of(topology)
    assert names.accelerator_type(found) == accelerator_type
    assert names.TPUS[found.chip.name].gke == gke
    assert names.slice_shape(found) == shape
    assert (found.slices, names.hosts(found), names.chips_per_host(found)) == (slices, hosts, chips)


@pytest.mark.parametrize(
    ("topology", "sky", "hosts", "chips"),
    [
        ("h100:8", "H100:8", 1, 8),
        ("h200:2", "H200:2", 1, 2),
        ("b200:32", "B200:8", 4, 8),
        ("v5p:4x4x2", "tpu-v5p-64", 8, 4),
    ],
)
def test_skypilot(topology, sky, hosts, chips):
    found = topology_of(topology)
    assert names.sky_accelerator(found) == sky
    assert (names.hosts(found), names.chips_per_host(found)) == (hosts, chips)


def test_what_a_cloud_does_not_have_is_refused_with_what_has_it():
    with pytest.raises(UsageError, match=r"h100:8 are GPUs, but TPU VMs .* launch\.cloud\.slurm"):
        names.accelerator_type(topology_of("h100:8"))
    for topology in ("2xv6e-256", "tpu7x-128"):
        with pytest.raises(UsageError, match=r"SkyPilot has no .* launch\.cloud\.tpu_vm"):
            names.sky_accelerator(topology_of(topology))


def test_every_chip_that_can_be_planned_for_has_names():
    assert set(names.TPUS) | set(names.GKE_GPUS) == set(CHIPS)
