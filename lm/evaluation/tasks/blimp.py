"""BLiMP (Warstadt et al. 2019, arXiv:1912.00582): which of two sentences is grammatical, in 67 paradigms."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from lm.evaluation.log_likelihood import Score
from lm.evaluation.tasks.sources import Example
from lm.evaluation.tasks.task import Figure, Question, Task, share


class Blimp(Task):
    """Fields of a row: sentence_good, sentence_bad, UID. acc is the unweighted mean over the paradigms (UID); a limit
    applies to each paradigm."""

    name = "blimp"
    normalized = False

    def first(self, limit: int) -> Iterator[Question]:
        seen: Counter[str] = Counter()
        self.paradigms: list[str] = []
        for path in self.files():
            rows = list(self.rows(path))
            for row, question in zip(rows, self.questions_in(path, rows), strict=True):
                seen[row["UID"]] += 1
                if not limit or seen[row["UID"]] <= limit:
                    self.paradigms.append(row["UID"])
                    yield question

    def question(self, row: Example) -> Question:
        sentences = [row["sentence_good"], row["sentence_bad"]]
        if not isinstance(row["UID"], str):
            raise TypeError(f"UID is {row['UID']!r}")
        return Question([("", f" {one}") for one in sentences], 0, [len(one) for one in sentences])

    def count(self, scores: Sequence[Sequence[Score]]) -> dict[str, Figure]:
        right: dict[str, list[bool]] = {}
        for paradigm, (good, bad) in zip(self.paradigms, scores, strict=True):
            right.setdefault(paradigm, []).append(good.log_likelihood >= bad.log_likelihood)
        shares = [share(of_one) for of_one in right.values()]
        error = math.sqrt(sum(one.standard_error**2 for one in shares)) / len(shares)
        return {"acc": Figure(sum(one.value for one in shares) / len(shares), error)}
