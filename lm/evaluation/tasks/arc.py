"""ARC (Clark et al. 2018, arXiv:1803.05457): questions of school science, the easy ones and the others."""

from lm.evaluation.tasks.sources import Example
from lm.evaluation.tasks.task import Question, Task


class ArcEasy(Task):
    """A row is question, choices (text, label), answerKey; or query, choices, gold, where the query begins with
    "Question:"."""

    name = "arc_easy"

    def question(self, row: Example) -> Question:
        if "query" in row:
            prompt, choices, right = row["query"], row["choices"], int(row["gold"])
        else:
            prompt, choices = f"Question: {row['question']}", row["choices"]["text"]
            right = list(row["choices"]["label"]).index(row["answerKey"])
        return Question([(f"{prompt}\nAnswer:", f" {one}") for one in choices], right, [len(one) for one in choices])


class ArcChallenge(ArcEasy):
    """Those that retrieval and co-occurrence of words do not answer."""

    name = "arc_challenge"
