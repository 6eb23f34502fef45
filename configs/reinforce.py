"""Reinforcement learning on a task that checks answers, after finetuning.

python -m launch.reinforce runs/assistant configs/reinforce.py --reinforce.task calculator
"""

import dataclasses

from configs.experiment import Experiment
from lm.config import MeshConfig, OptimizerConfig, ReinforceConfig, SpikeConfig


def get_config(base: Experiment) -> Experiment:
    optimizer = OptimizerConfig(
        learning_rate=7e-4, final_learning_rate=7e-5, warmup_steps=5, beta1=0.9, beta2=0.95, epsilon=1e-8,
        weight_decay=0.0, clip_norm=1.0,
    )  # fmt: skip
    train = dataclasses.replace(
        base.train, steps=100, optimizer=optimizer, micro_batches=1, validate_every=25, evaluators=("validation",),
        hooks=(), step_metrics=(), sample_every=0, checkpoint_every=25, checkpoint_every_seconds=0.0,
        snapshot_steps=(), log_every=1, patience=0, ema_decay=0.0, spikes=SpikeConfig(), mesh=MeshConfig(),
    )  # fmt: skip
    return dataclasses.replace(base, train=train, reinforce=ReinforceConfig(task="calculator"))
