"""LAMBADA (Paperno et al. 2016, arXiv:1606.06031), as processed by OpenAI: predict the last word of a passage."""

import math
from collections.abc import Sequence

from lm.evaluation.log_likelihood import Score
from lm.evaluation.tasks.sources import Example
from lm.evaluation.tasks.task import Figure, Question, Task, share


class Lambada(Task):
    """Fields of a row: text. The only answer is the last word: acc is whether greedy decoding generates it, perplexity
    is exp of the mean loss per word."""

    name = "lambada_openai"

    def question(self, row: Example) -> Question:
        before, _, word = row["text"].rpartition(" ")
        return Question([(before, f" {word}")], 0, [len(word)])

    def count(self, scores: Sequence[Sequence[Score]]) -> dict[str, Figure]:
        nats = [-one.log_likelihood for (one,) in scores]
        mean = sum(nats) / len(nats)
        spread = math.sqrt(sum((one - mean) ** 2 for one in nats) / max(1, len(nats) - 1) / len(nats))
        perplexity = math.exp(min(mean, 700.0))  # above that, exp overflows
        return {"perplexity": Figure(perplexity, perplexity * spread), "acc": share([one.greedy for (one,) in scores])}
