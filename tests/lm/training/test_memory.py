"""The minimum memory of a model is computed without building it; models that cannot fit are rejected."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import pytest

from configs.experiment import load_config
from lm.config import MeshConfig, MuonConfig
from lm.errors import UsageError
from lm.model import cost
from lm.model.cost import check_inference_memory, check_memory, free_bytes, free_host_bytes, host_bytes, on_host_alone
from lm.training.memory import check_training_memory, state_bytes, training_bytes
from lm.training.optimizer import OPTIMIZERS, make_optimizer
from lm.training.state import make_state

CONFIGS = Path(__file__).parents[3] / "configs"
DEMO = load_config(CONFIGS / "demo.py")


@pytest.mark.parametrize("scan_layers", [False, True])
def test_memory_of_many_layers_is_extrapolated_from_two(monkeypatch, scan_layers):
    model = replace(DEMO.model, layers=5, scan_layers=scan_layers)
    exact = cost.count_parameters(model), state_bytes(model, DEMO.train.optimizer, DEMO.train.lora)
    monkeypatch.setattr(cost, "LAYERS_TRACED", 2)
    cost.counted_parameters.cache_clear()
    state_bytes.cache_clear()
    assert (cost.count_parameters(model), state_bytes(model, DEMO.train.optimizer, DEMO.train.lora)) == exact


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("muon", [None, DEMO.train.optimizer.muon or MuonConfig(0.02, 0.95, 5)], ids=["", "muon"])
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_the_size_of_the_state_equals_that_of_the_optimizer(rule, muon, dtype):
    train = replace(DEMO.train, optimizer=replace(DEMO.train.optimizer, name=rule, muon=muon))
    optimizer = make_optimizer(train.optimizer, train.steps)
    model = replace(DEMO.model, parameter_dtype=dtype)
    state = jax.eval_shape(lambda: make_state(model, optimizer, 0, train.spikes))
    real = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    said = training_bytes(model, train)
    assert real - 1000 < said["parameters"] + said["moments"] <= real  # except the guard's counters


def test_micro_batches_accumulate_gradients_of_bfloat16_parameters_in_float32():
    model = replace(DEMO.model, parameter_dtype="bfloat16")
    one, two = (training_bytes(model, replace(DEMO.train, micro_batches=count)) for count in (1, 2))
    assert one["gradients"] == one["parameters"] == two["parameters"] == two["gradients"] // 2


def test_a_model_that_cannot_fit_is_rejected_with_both_figures_and_remedies():
    model = replace(DEMO.model, layers=1000, width=19_200)
    needed = training_bytes(model, DEMO.train)
    check_memory(needed, model, sum(needed.values()), "this machine")
    with pytest.raises(UsageError) as refused:
        check_memory(needed, model, sum(needed.values()) - 1, "this machine")
    message = str(refused.value)
    assert (
        f"{sum(needed.values()) / 1e9:,.1f} GB" in message and f"{cost.count_parameters(model):,} parameters" in message
    )
    for name in ("model.layers = 1000", "model.width = 19200", "train.batch_size", "moments", "gradients"):
        assert name in message


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("model", "layers", 10**9),
        ("model", "mlp_width", 10**9),
        ("model", "vocab_size", 10**9),
        ("train", "batch_size", 10**12),
        ("train.spikes", "window", 10**12),
    ],
)
def test_impossible_sizes_are_rejected_before_training(monkeypatch, section, field, value):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    model, train = DEMO.model, DEMO.train
    if section == "model":
        model = replace(model, **{field: value})
    elif section == "train":
        train = replace(train, **{field: value})
    else:
        train = replace(train, spikes=replace(train.spikes, **{field: value}))
    with pytest.raises(UsageError, match="needs at least"):
        check_training_memory(model, train)
    check_training_memory(DEMO.model, DEMO.train)


def test_evaluation_and_samples_count_their_rows(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    check_inference_memory(DEMO.model, 16, 256, "evaluate.batch_size")
    with pytest.raises(UsageError, match=r"it needs at least .*or lower evaluate\.batch_size"):
        check_inference_memory(DEMO.model, 10**12, 256, "evaluate.batch_size")


@dataclass
class Device:
    """The attributes of jax.Device that are used."""

    limit: int
    platform: str = "gpu"
    device_kind: str = "a card"
    used: int = 0

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": self.limit, "bytes_in_use": self.used}


def test_memory_is_checked_for_each_accelerator():
    needed = training_bytes(DEMO.model, DEMO.train)
    rows = needed["batch"] + needed["kept activations"]
    whole = sum(needed.values()) - rows
    cut = replace(DEMO.train, mesh=MeshConfig(fsdp=2))
    for train, each in ((DEMO.train, whole + rows // 2), (cut, (whole + rows) // 2)):
        check_training_memory(DEMO.model, train, [Device(each)] * 2)
        check_training_memory(DEMO.model, train, [Device(each)], processes=2)
        with pytest.raises(UsageError, match=r"each device \(a card\) has"):
            check_training_memory(DEMO.model, train, [Device(each - 10)] * 2)


def test_free_memory_is_the_minimum_of_the_devices_or_that_of_the_host(tmp_path):
    used = [Device(100, used=30), Device(100, used=60)]
    assert free_bytes(used) == 40 and free_bytes([Device(100, used=101)]) == 0
    host = free_bytes(jax.devices("cpu")[:1])
    assert host and 0 < host <= (host_bytes() or 0)
    (tmp_path / "proc").mkdir()
    assert free_host_bytes(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("MemTotal:  9 kB\nMemAvailable:  4 kB\n")
    assert free_host_bytes(tmp_path) == 4096
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    for most, expected in (("max", 4096), ("3000", 2500), ("9000", 4096), ("100", 0)):
        for name, text in {"max": most, "current": "1000", "stat": "anon 500\ninactive_file 500\n"}.items():
            (group / f"memory.{name}").write_text(text + "\n")
        assert free_host_bytes(tmp_path) == expected


def test_the_platform_is_known_without_starting_jax():
    assert on_host_alone({"JAX_PLATFORMS": "cpu"}) and not on_host_alone({"JAX_PLATFORMS": "cuda"})
    assert (host_bytes() or 0) > 10**8
