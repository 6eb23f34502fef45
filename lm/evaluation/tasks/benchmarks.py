"""The benchmarks, with the prompts and the scoring of lm-eval."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lm.evaluation.log_likelihood import Score
from lm.evaluation.tasks.sources import REMEDY, Example, read_rows
from lm.evaluation.tasks.task import Figure, Question, Task, share
from lm.storage.example_rows import read_text_examples

BRACKETS = re.compile(r"\[([^\]\n]*+)(\]?)")
"""An opening bracket and the text up to the closing one or the end of the line; without a closing one, a second bracket
cannot close either."""
ENDINGS = 4


def cleaned(text: str) -> str:
    """Remove the markup of WikiHow texts, such as "[title]", as lm-eval does."""
    closed = BRACKETS.sub(lambda found: "" if found[2] else found[0], text.strip().replace(" [title]", ". "))
    return closed.replace("  ", " ")


class HellaSwag(Task):
    """HellaSwag (Zellers et al. 2019, arXiv:1905.07830): which of four endings continues a scene.

    Fields of a row: activity_label, ctx_a, ctx_b, endings, label; or query, choices, gold, which are used unchanged.
    """

    name = "hellaswag"

    def rows(self, path: Path) -> Iterable[Example]:
        return text_rows(path) if ".txt" in path.suffixes else read_rows(path)

    def question(self, row: Example) -> Question:
        if "query" in row:
            query, choices, right = row["query"], row["choices"], int(row["gold"])
        else:
            query = cleaned(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
            choices, right = [cleaned(ending) for ending in row["endings"]], int(row["label"])
        return Question.of(query, choices, right)


def text_rows(path: Path) -> Iterator[Example]:
    """Yield HellaSwag examples from a text file with six lines each: query, index of the right ending, four endings."""
    for query, gold, *choices in read_text_examples(path, 2 + ENDINGS, REMEDY):
        yield {"query": query, "choices": choices, "gold": gold}


class Lambada(Task):
    """LAMBADA (Paperno et al. 2016, arXiv:1606.06031), as processed by OpenAI: predict the last word of a passage.

    Fields of a row: text. The only answer is its last word. acc is the share of words that greedy decoding generates,
    perplexity is exp of the mean loss per word.
    """

    name = "lambada_openai"

    def question(self, row: Example) -> Question:
        before, _, word = row["text"].rpartition(" ")
        return Question.of(before, [word], 0)

    def count(self, scores: Sequence[Sequence[Score]]) -> dict[str, Figure]:
        nats = [-one.log_likelihood for (one,) in scores]
        mean = sum(nats) / len(nats)
        spread = math.sqrt(sum((one - mean) ** 2 for one in nats) / max(1, len(nats) - 1) / len(nats))
        perplexity = math.exp(min(mean, 700.0))  # above that, exp overflows
        return {"perplexity": Figure(perplexity, perplexity * spread), "acc": share([one.greedy for (one,) in scores])}


class ArcEasy(Task):
    """ARC-Easy (Clark et al. 2018, arXiv:1803.05457): the easier set of multiple-choice science questions.

    Fields of a row: question, choices (text, label), answerKey; or query (starting with "Question:"), choices, gold.
    """

    name = "arc_easy"

    def question(self, row: Example) -> Question:
        if "query" in row:
            prompt, choices, right = row["query"], row["choices"], int(row["gold"])
        else:
            prompt, choices = f"Question: {row['question']}", row["choices"]["text"]
            right = list(row["choices"]["label"]).index(row["answerKey"])
        return Question.of(f"{prompt}\nAnswer:", choices, right)


class ArcChallenge(ArcEasy):
    """ARC-Challenge: the ARC questions that retrieval and word co-occurrence cannot answer. Rows as in ArcEasy."""

    name = "arc_challenge"


class WinoGrande(Task):
    """WinoGrande (Sakaguchi et al. 2019, arXiv:1907.10641): which of two names fills a blank.

    Fields of a row: sentence with a blank "_", option1, option2, answer; or context_options, continuation, gold. The
    scored text is the same for both answers: the part after the blank (Trinh and Le 2018, arXiv:1806.02847).
    """

    name = "winogrande"
    normalized = False

    def question(self, row: Example) -> Question:
        if "context_options" in row:
            contexts, rest, right = row["context_options"], row["continuation"], int(row["gold"])
        else:
            before, blank, rest = row["sentence"].partition("_")
            if not blank:
                raise ValueError("the sentence has no blank")
            contexts, right = [before + row["option1"], before + row["option2"]], int(row["answer"]) - 1
        rest = rest.strip()
        return Question([(context, f" {rest}") for context in contexts], right, [len(rest)] * len(contexts))


class Piqa(Task):
    """PIQA (Bisk et al. 2019, arXiv:1911.11641): which of two ways to do something works.

    Fields of a row: goal, sol1, sol2, label.
    """

    name = "piqa"

    def question(self, row: Example) -> Question:
        return Question.of(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], int(row["label"]))


class Blimp(Task):
    """BLiMP (Warstadt et al. 2019, arXiv:1912.00582): which of two sentences is grammatical, in 67 paradigms.

    Fields of a row: sentence_good, sentence_bad, UID (the paradigm). acc is the unweighted mean over the paradigms;
    tasks.limit applies to each of them.
    """

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
        if not isinstance(row["UID"], str):
            raise TypeError(f"UID is {row['UID']!r}")
        return Question.of("", [row["sentence_good"], row["sentence_bad"]], 0)

    def count(self, scores: Sequence[Sequence[Score]]) -> dict[str, Figure]:
        right: dict[str, list[bool]] = {}
        for paradigm, (good, bad) in zip(self.paradigms, scores, strict=True):
            right.setdefault(paradigm, []).append(good.log_likelihood >= bad.log_likelihood)
        shares = [share(of_one) for of_one in right.values()]
        error = math.sqrt(sum(one.standard_error**2 for one in shares)) / len(shares)
        return {"acc": Figure(sum(one.value for one in shares) / len(shares), error)}
