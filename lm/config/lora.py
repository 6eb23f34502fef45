"""Configuration of low-rank adapters."""

from dataclasses import dataclass

from lm.fields import Config, positive, within


@dataclass(frozen=True)
class LoraConfig(Config):
    """Low-rank adaptation (LoRA, arXiv:2106.09685): train.start.checkpoint's parameters are frozen, and each linear map
    within blocks computes x W + (alpha / rank) x A B, of which only A and B are trained."""

    rank: int = 0
    """Columns of A and rows of B; 0: no adapters, all parameters are trained."""
    alpha: float = 16.0
    """Scale of the adapters' outputs, divided by the rank."""
    maps: tuple[str, ...] = ()
    """Linear maps that get an adapter, such as attention.query attention.value; empty: all of attention and MLP."""

    def check_values(self):
        within(self, "train.lora", 0, 2**16, "rank")
        positive(self, "train.lora", "alpha")
