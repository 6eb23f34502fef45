"""Configuration of the optimizer and its learning rate schedule."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from lm.errors import UsageError
from lm.fields import NAMES_CODE, Config, check_names, positive, within


@dataclass(frozen=True)
class MuonConfig(Config):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for the linear maps within blocks."""

    learning_rate: float
    """Peak learning rate of Muon; it follows the same schedule as the other optimizer. The singular values of an update
    are about 1, times sqrt(out / in) if a matrix has more outputs than inputs."""
    momentum: float
    """Decay rate of the Nesterov momentum."""
    newton_schulz_steps: int
    """Newton-Schulz iterations that orthogonalize an update; 5 in the published Muon."""

    def check_values(self):
        positive(self, "train.optimizer.muon", "learning_rate", "newton_schulz_steps")
        within(self, "train.optimizer.muon", 0, 1, "momentum", below=True)


@dataclass(frozen=True)
class OptimizerConfig(Config):
    """Optimizer and learning rate; weight decay is decoupled and applies only to matrices."""

    learning_rate: float
    """Peak learning rate, reached at the end of the warm-up."""
    final_learning_rate: float
    """Learning rate at the last step, at most learning_rate. Muon's decays by the same factor."""
    warmup_steps: int
    """Steps of linear warm-up from 0."""
    beta1: float
    """Decay rate of the first moment."""
    beta2: float
    """Decay rate of the second moment; not used by Adafactor, which has a schedule for it."""
    epsilon: float
    """Added to the square root of AdamW's second moment."""
    weight_decay: float
    """Decoupled weight decay of matrices, multiplied by the learning rate."""
    clip_norm: float
    """Scale gradients down to this global norm if theirs is larger; 0: no clipping."""
    name: Annotated[Literal["adamw", "adafactor", "lion"] | str, NAMES_CODE] = "adamw"
    """AdamW (arXiv:1711.05101), Adafactor (arXiv:1804.04235), whose second moments take almost no memory, Lion
    (arXiv:2302.06675), which stores one moment and needs an about 5 times lower learning rate, or your own function as
    my_module.my_optimizer."""
    muon: MuonConfig | None = None
    """Use Muon for the linear maps within blocks, and the optimizer `name` for all other parameters; None: no Muon."""
    schedule: Annotated[Literal["cosine", "linear", "warmup_stable_decay"] | str, NAMES_CODE] = "cosine"
    """Decay of the learning rate after the warm-up: cosine (arXiv:1608.03983), linear, warmup_stable_decay, constant
    until a linear decay in the last decay_steps steps (arXiv:2404.06395), or your own function as
    my_module.my_schedule."""
    decay_steps: int = 0
    """Steps of the final decay; only for warmup_stable_decay and your own schedules."""

    def check_values(self):
        check_names(self, "train.optimizer", "name", "schedule")
        positive(self, "train.optimizer", "learning_rate", "epsilon")
        within(self, "train.optimizer", 0, 1, "beta1", "beta2", below=True)
        rates = ("final_learning_rate", "warmup_steps", "weight_decay", "clip_norm")
        within(self, "train.optimizer", 0, math.inf, *rates)
        if self.final_learning_rate > self.learning_rate:
            raise UsageError(
                f"train.optimizer.final_learning_rate = {self.final_learning_rate} is above learning_rate = "
                f"{self.learning_rate}, so the rate would rise until the end. Lower final_learning_rate, or raise "
                "learning_rate."
            )
        decays = "." in self.schedule or (self.decay_steps > 0) == (self.schedule == "warmup_stable_decay")
        if not decays or self.decay_steps < 0:
            raise UsageError(
                f"train.optimizer.decay_steps = {self.decay_steps} with schedule = {self.schedule}: steps must be "
                "above 0 with warmup_stable_decay, and 0 with other schedules."
            )
