"""The optimizer and its learning rates."""

import math
from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config, positive


@dataclass(frozen=True)
class MuonConfig(Config):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for the linear maps within blocks."""

    learning_rate: float
    """Peak learning rate of these; it rises and falls as the other does. An update's singular values lie about 1, times
    sqrt(out / in) where a map is wider out than in."""
    momentum: float
    """Decay of the momentum, which is Nesterov's."""
    newton_schulz_steps: int
    """Iterations that make an update orthogonal; the published Muon has 5."""

    def __post_init__(self):
        super().__post_init__()
        positive(self, "train.optimizer.muon", "learning_rate", "newton_schulz_steps")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"train.optimizer.muon.momentum is {self.momentum}; it must be at least 0 and below 1.")


@dataclass(frozen=True)
class OptimizerConfig(Config):
    """How gradients become updates; weight decay is decoupled and on matrices only."""

    learning_rate: float
    """Peak learning rate, reached at the end of the warm-up."""
    final_learning_rate: float
    """Learning rate at the last step; at most learning_rate. Muon's falls by the same factor."""
    warmup_steps: int
    """Steps of linear warm-up from zero."""
    beta1: float
    """Decay of the first moment."""
    beta2: float
    """Decay of the second moment; Adafactor has a schedule of its own."""
    epsilon: float
    """Added to the root of AdamW's second moment."""
    weight_decay: float
    """Decoupled weight decay of matrices, times the learning rate."""
    clip_norm: float
    """Gradients with a larger global norm are scaled down to it; 0 leaves them as they are."""
    name: Literal["adamw", "adafactor", "lion"] = "adamw"
    """AdamW (arXiv:1711.05101), Adafactor (arXiv:1804.04235), whose second moments take next to no memory, or Lion
    (arXiv:2302.06675), which keeps one moment and wants a learning rate some 5 times smaller."""
    muon: MuonConfig | None = None
    """Muon for the linear maps within blocks, beside the optimizer `name` for all else; None for that alone."""
    schedule: Literal["cosine", "linear", "warmup_stable_decay"] = "cosine"
    """How the rate falls after the warm-up: as a cosine (arXiv:1608.03983), in a line, or not at all until the last
    decay_steps steps, and then in a line (arXiv:2404.06395)."""
    decay_steps: int = 0
    """Steps of the decay at the end; of warmup_stable_decay alone."""

    def __post_init__(self):
        super().__post_init__()
        positive(self, "train.optimizer", "learning_rate", "epsilon")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"train.optimizer.{name} is {getattr(self, name)}; it must be at least 0 and below 1.")
        for name in ("final_learning_rate", "warmup_steps", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"train.optimizer.{name} is {getattr(self, name)}; it must be 0 or more, and finite.")
        if self.final_learning_rate > self.learning_rate:
            raise UsageError(
                f"train.optimizer.final_learning_rate = {self.final_learning_rate} is above learning_rate = "
                f"{self.learning_rate}, so the rate would rise to the end. Lower the one, or raise the other."
            )
        if (self.decay_steps > 0) != (self.schedule == "warmup_stable_decay") or self.decay_steps < 0:
            raise UsageError(
                f"train.optimizer.decay_steps = {self.decay_steps} with schedule = {self.schedule}: it is above 0 with "
                "warmup_stable_decay, and 0 with any other."
            )
