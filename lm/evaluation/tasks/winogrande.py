"""WinoGrande (Sakaguchi et al. 2019, arXiv:1907.10641): which of two names fills a blank."""

from lm.evaluation.tasks.sources import Example
from lm.evaluation.tasks.task import Question, Task


class WinoGrande(Task):
    """Fields of a row: sentence with a blank "_", option1, option2, answer; or context_options, continuation, gold. The
    scored text is the same for both answers: the part after the blank (Trinh and Le 2018, arXiv:1806.02847)."""

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
