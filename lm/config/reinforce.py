"""Configuration of reinforcement learning."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from lm.errors import UsageError
from lm.fields import NAMES_CODE, Config, not_hashed, within


@dataclass(frozen=True)
class ReinforceConfig(Config):
    """Reinforcement learning with verifiable rewards (launch.reinforce)."""

    base: str = not_hashed(default="")
    """Run folder of the finetuned model to start from; empty: this run does not learn from rewards."""
    step: int | None = None
    """Step of the checkpoint of `base`; default: the newest."""
    task: Annotated[str, NAMES_CODE] = "calculator"
    """reverse_words, sort_numbers or calculator (lm/reinforcement/tasks.py); page_questions, about the pages of the
    run, with searches; reasoning_gym:NAME, if the package reasoning-gym is installed; or your own function as
    my_module.my_task."""
    algorithm: Literal["reinforce", "grpo"] = "reinforce"
    """Advantage of an answer. reinforce: its reward minus the mean of the other answers to the same question
    (arXiv:2402.14740). grpo: minus the mean of all, in standard deviations, and divided by the length of the answer
    (arXiv:2402.03300)."""
    prompts: int = 8
    """Questions per step."""
    samples: int = 8
    """Answers sampled to each question."""
    slots: int = 32
    """Answers generated, and trained on, together."""
    context: int = 128
    """Maximum tokens of a question with its answer and the results of tools."""
    max_tokens: int = 32
    """Maximum tokens of an answer, including calls of tools; a truncated answer has reward 0."""
    held_out: int = not_hashed(default=200)
    """Held-out questions per evaluation, each with one sampled answer."""

    def check_values(self):
        within(self, "reinforce", 1, math.inf, "prompts", "slots", "max_tokens", "held_out")
        within(self, "reinforce", 2, math.inf, "samples")
        if self.max_tokens >= self.context:
            raise UsageError(
                f"reinforce.max_tokens = {self.max_tokens} must be below reinforce.context = {self.context}, which "
                "includes the question."
            )
