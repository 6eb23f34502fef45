"""HellaSwag (Zellers et al. 2019, arXiv:1905.07830): which of four endings continues a scene."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lm.evaluation.tasks.sources import REMEDY, Example, read_rows
from lm.evaluation.tasks.task import Question, Task
from lm.storage.example_rows import read_text_examples

BRACKETS = re.compile(r"\[([^\]\n]*+)(\]?)")
"""An opening bracket and the text up to the closing one or the end of the line; without a closing one, a second bracket
cannot close either."""
ENDINGS = 4


def cleaned(text: str) -> str:
    """Remove markup of WikiHow pages, as lm-eval does."""
    closed = BRACKETS.sub(lambda found: "" if found[2] else found[0], text.strip().replace(" [title]", ". "))
    return closed.replace("  ", " ")


class HellaSwag(Task):
    """Fields of a row: activity_label, ctx_a, ctx_b, endings, label; or query, choices, gold, which are used
    unchanged."""

    name = "hellaswag"

    def rows(self, path: Path) -> Iterable[Example]:
        return text_rows(path) if ".txt" in path.suffixes else read_rows(path)

    def question(self, row: Example) -> Question:
        if "query" in row:
            query, choices, right = row["query"], row["choices"], int(row["gold"])
        else:
            query = cleaned(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
            choices, right = [cleaned(ending) for ending in row["endings"]], int(row["label"])
        return Question([(query, f" {one}") for one in choices], right, [len(one) for one in choices])


def text_rows(path: Path) -> Iterator[Example]:
    """Read examples from a text file: query, index of the right ending, and four endings, one per line."""
    for query, gold, *choices in read_text_examples(path, 2 + ENDINGS, REMEDY):
        yield {"query": query, "choices": choices, "gold": gold}
