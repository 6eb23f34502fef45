"""PIQA (Bisk et al. 2019, arXiv:1911.11641): which of two ways to do something works."""

from lm.evaluation.tasks.sources import Example
from lm.evaluation.tasks.task import Question, Task


class Piqa(Task):
    """Fields of a row: goal, sol1, sol2, label."""

    name = "piqa"

    def question(self, row: Example) -> Question:
        choices = [row["sol1"], row["sol2"]]
        prompt = f"Question: {row['goal']}\nAnswer:"
        return Question([(prompt, f" {one}") for one in choices], int(row["label"]), [len(one) for one in choices])
