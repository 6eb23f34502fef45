"""Plans for NVIDIA GPUs that are not here, by XLA and JAX's CUDA packages, without a card."""

import importlib.util
import json
import re
from types import SimpleNamespace

import pytest

from configs.experiment import load_config
from lm.devices import Target, target_of
from lm.planner.compile import compiler_for
from lm.planner.compilers import CORES, has_cuda, target_config
from lm.planner.plan import make_plan
from lm.planner.topology import CHIPS, topology_of
from tests.lm.planner.test_plan import REPOSITORY, plan_of_small_model

GPUS = [chip for chip in CHIPS.values() if any(chip.capability)]
needs_cuda = pytest.mark.skipif(not has_cuda(), reason="needs JAX's CUDA packages: make setup ACCELERATOR=cuda12")


def test_every_nvidia_gpu_that_a_topology_names_can_be_compiled_for():
    assert {chip.name for chip in GPUS} == CORES.keys()
    assert {name for name, chip in CHIPS.items() if not chip.torus} - CORES.keys() == {"mi300x"}
    for chip in GPUS:
        text = target_config(chip)
        assert f"device_memory_size: {chip.memory}" in text and text.count("{") == text.count("}")


@pytest.mark.parametrize("chip", GPUS, ids=lambda chip: chip.name)
def test_a_gpu_that_is_only_compiled_for_tells_its_capability(chip):
    """By the description that XLA hands on as the version of its platform."""
    (version,) = re.findall(r'device_description_str: "(.*)"', target_config(chip))
    device = SimpleNamespace(client=SimpleNamespace(platform_version=version), platform="gpu")
    assert target_of(device) == Target("cuda", chip.capability)


def test_without_the_packages_gpus_are_reckoned_and_tpus_are_not(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not has_cuda() and compiler_for(topology_of("h100:8")) is None
    assert compiler_for(topology_of("v5e:2x2")) is not None


def test_a_plan_for_amd_is_arithmetic_with_plain_attention_and_asks_for_no_cuda(monkeypatch):
    monkeypatch.setattr("lm.planner.compile.has_cuda", lambda: True)
    experiment = load_config(REPOSITORY / "configs/gpt2_1558m.py")
    topology = topology_of("mi300x:8")
    assert compiler_for(topology) is None
    plan = make_plan(experiment.model, experiment.train, topology)
    assert plan.attention == "xla" and plan.needed_bytes is not None
    assert "no fused kernel for rocm" in plan.remarks[0] and "takes an AMD GPU" in plan.remarks[1]


@needs_cuda
def test_the_step_is_compiled_without_a_card():
    done = plan_of_small_model("h100:8", fsdp=8)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] and found["attention"] == "cudnn" and found["kernels"]
    assert found["argument_bytes"] == pytest.approx(12 * found["parameters"] / 8 + 256 * 16, rel=0.05)
    # Gradients of the layers in bfloat16, and at most those of both tables in float32 and of the norms besides.
    layers = 3 * (4 * 256 * 256 + 3 * 256 * 512) * 2
    tables = found["parameters"] - layers // 2
    assert layers <= found["collectives"]["reduce-scatter"] <= layers + 4 * tables
