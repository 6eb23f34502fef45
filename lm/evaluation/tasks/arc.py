"""ARC (Clark et al. 2018, arXiv:1803.05457): multiple-choice science questions, an easy and a challenge set."""

from lm.evaluation.tasks.sources import Example
from lm.evaluation.tasks.task import Question, Task


class ArcEasy(Task):
    """Fields of a row: question, choices (text, label), answerKey; or query (starting with "Question:"), choices,
    gold."""

    name = "arc_easy"

    def question(self, row: Example) -> Question:
        if "query" in row:
            prompt, choices, right = row["query"], row["choices"], int(row["gold"])
        else:
            prompt, choices = f"Question: {row['question']}", row["choices"]["text"]
            right = list(row["choices"]["label"]).index(row["answerKey"])
        return Question([(f"{prompt}\nAnswer:", f" {one}") for one in choices], right, [len(one) for one in choices])


class ArcChallenge(ArcEasy):
    """Questions that retrieval and word co-occurrence cannot answer."""

    name = "arc_challenge"
