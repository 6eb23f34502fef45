"""Configs reject invalid numbers, and every choice of a field has an implementation."""

import typing
from dataclasses import replace

import pytest

from configs.demo import get_config
from lm.config import (
    REMAT,
    LoraConfig,
    ModelConfig,
    MuonConfig,
    OptimizerConfig,
    TrainConfig,
)
from lm.errors import UsageError
from lm.fields import literal_values
from lm.model.attention.choice import UNSUPPORTED
from lm.model.attention.kernels import ATTENTION
from lm.model.layers import ACTIVATIONS, NORMS
from lm.model.transformer import BLOCKS
from lm.resilience.goodput import PHASES, Phase
from lm.training.optimizer import OPTIMIZERS
from lm.training.schedule import SCHEDULES

DEMO = get_config()
STEPS, LORA = DEMO.train.steps, LoraConfig(rank=3, alpha=6.0)


def replaced(train: TrainConfig, **changes) -> TrainConfig:
    """`train` with some fields changed, also of its optimizer."""
    own = {name: changes.pop(name) for name in list(changes) if hasattr(train, name)}
    return replace(train, optimizer=replace(train.optimizer, **changes), **own)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 1e-4, "final_learning_rate": 2e-4}, ["final_learning_rate = 0.0002", "= 0.0001", "Lower"]),
        ({"steps": 20, "warmup_steps": 21}, ["warmup_steps = 21", "train.steps = 20", "Shorten"]),
        ({"steps": 20, "warmup_steps": 20}, ["warmup_steps = 20", "train.steps = 20", "Warm up for fewer"]),
        (
            {"steps": 20, "warmup_steps": 0, "schedule": "warmup_stable_decay", "decay_steps": 21},
            ["decay_steps = 21", "train.steps = 20", "Shorten"],
        ),
        ({"decay_steps": 5}, ["decay_steps = 5", "schedule = "]),
        ({"schedule": "warmup_stable_decay", "decay_steps": 0}, ["decay_steps = 0", "warmup_stable_decay"]),
        ({"steps": 20, "warmup_steps": 4, "schedule": "warmup_stable_decay", "decay_steps": 17},
         ["warmup_steps = 4 and decay_steps = 17 are more than train.steps = 20"]),
        ({"profile_step": -1, "profile_steps": 1}, ["profile_step = -1 and profile_steps = 1"]),
        ({"profile_step": STEPS, "profile_steps": 2}, [f"profile_step = {STEPS} and profile_steps = 2", f"= {STEPS}"]),
        ({"validate_every": 0, "checkpoints_kept_best": 2}, ["checkpoints_kept_best = 2", "validate_every = 0"]),
        ({"checkpoints_kept_best": 2, "evaluators": ("my.Own",)}, ["kept_best = 2", "train.evaluators is my.Own"]),
        ({"evaluators": ()}, ["validate_every = ", "evaluators is empty"]),
        ({"sample_every": -1}, ["sample_every is -1", "at least 0"]),
        ({"patience": 2, "validate_every": 0}, ["patience = 2 needs validation losses, but train.validate_every = 0"]),
        ({"patience": 2, "evaluators": ("piqa",)}, ["patience = 2 needs validation losses, but train.evaluators"]),
        ({"ema_decay": 1.0}, ["train.ema_decay is 1.0; it must be at least 0 and below 1"]),
        ({"lora": LORA, "muon": None, "ema_decay": 0.9}, ["does not work with train.ema_decay = 0.9"]),
        ({"lora": LORA, "muon": MuonConfig(0.02, 0.95, 5)},
         ["does not work with train.optimizer.muon. Use a config without it"]),
        ({"dropout": 1.0}, ["train.dropout is 1.0", "below 1"]),
        ({"beta1": 1.0}, ["beta1 is 1.0", "below 1"]),
    ],
)  # fmt: skip
def test_contradictory_numbers_are_rejected_with_both_values_and_the_remedy(changes, words):
    with pytest.raises(UsageError) as error:
        replaced(DEMO.train, **changes)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 97}, ["heads = 2", "width = 97", "model.head_dim"]),
        ({"head_dim": 0}, ["model.head_dim is 0", "from 1 to"]),
        ({"head_dim": 7}, ["model.head_dim", "= 7 is odd", "even"]),
        ({"attention_windows": (8, -1)}, ["attention_windows is -1", "from 0"]),
        ({"attention_windows": (8, 0), "scan_layers": True}, ["(8, 0)", "scan_layers = True", "one window"]),
        ({"block": "my_block.MyBlock"}, ["token_shift = True", "block = my_block.MyBlock", "token_shift False"]),
    ],
)
def test_invalid_heads_and_windows_are_rejected(changes, words):
    with pytest.raises(UsageError) as error:
        replace(DEMO.model, **changes)
    assert all(word in str(error.value) for word in words), error.value


def test_windows_cycle_over_layers_and_heads_may_have_their_own_size():
    model = replace(DEMO.model, layers=3, width=97, head_dim=6, attention_windows=(8, 0))
    assert (model.head_channels, [model.window(layer) for layer in range(3)]) == (6, [8, None, 8])
    assert (DEMO.model.head_channels, DEMO.model.window(0)) == (DEMO.model.width // DEMO.model.heads, None)


def test_a_constant_learning_rate_is_allowed():
    train = replaced(DEMO.train, learning_rate=1e-3, final_learning_rate=1e-3)
    assert train.optimizer.learning_rate == train.optimizer.final_learning_rate


@pytest.mark.parametrize(
    ("config", "name", "table"),
    [
        (ModelConfig, "norm", NORMS),
        (ModelConfig, "mlp", ACTIVATIONS),
        (ModelConfig, "attention", {"auto": None, **ATTENTION}),
        (ModelConfig, "attention", {"auto": None, **UNSUPPORTED}),
        (TrainConfig, "remat", REMAT),
        (ModelConfig, "block", BLOCKS),
        (OptimizerConfig, "name", OPTIMIZERS),
        (OptimizerConfig, "schedule", SCHEDULES),
    ],
)
def test_the_choices_of_a_field_are_the_names_in_its_table(config, name, table):
    assert set(literal_values(typing.get_type_hints(config)[name])) == set(table)


def test_all_phases_of_goodput_are_described():
    assert set(typing.get_args(Phase)) <= set(PHASES)
