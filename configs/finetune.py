"""Finetune any run on your own conversations. The defaults suit a few hundred conversations; for more, increase
train.steps and train.batch_size. With adapters, also increase the learning rate:

    python -m launch.finetune runs/smollm2 configs/finetune.py --chat.conversations talks.jsonl --workdir runs/mine
    ... --train.lora.rank 16 --train.optimizer.learning-rate 0.0002
"""

import dataclasses

from configs.experiment import Experiment
from lm.config import ChatConfig, OptimizerConfig


def get_config(base: Experiment) -> Experiment:
    optimizer = OptimizerConfig(
        learning_rate=2e-5, final_learning_rate=0.0, warmup_steps=0, beta1=0.9, beta2=0.95, epsilon=1e-8,
        weight_decay=0.0, clip_norm=1.0, schedule="linear",
    )  # fmt: skip
    train = dataclasses.replace(
        base.train, steps=200, batch_size=8, optimizer=optimizer, ema_decay=0.0, validate_every=50, sample_every=0,
        checkpoint_every=100, snapshot_steps=(), skip_untrained=base.train.loss_chunks > 1,
    )  # fmt: skip
    return dataclasses.replace(base, train=train, chat=ChatConfig(validation_fraction=0.1))
