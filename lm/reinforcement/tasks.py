"""Tasks with verifiable rewards: functions (seed, number) -> Instance, whose check needs no other model."""

import functools
import hashlib
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lm.chat.messages import Message
from lm.chat.tools import NO_TOOLS, Tools
from lm.chat.tools import calculator as compute
from lm.errors import UsageError
from lm.trusted_code import named

HELD_OUT = 5
"""One of this many instances is only for evaluation, chosen by a hash of its question."""
MOST_TRIES = 1000
"""Maximum instances generated to find one of the requested part."""


class Instance(NamedTuple):
    """One question of a task."""

    question: str
    check: Callable[[Sequence[Message]], float]
    """check(messages): the reward from 0 to 1 of an answer: replies of the assistant, which may call tools, and the
    results of the tools. 1: solved."""
    tools: Tools = NO_TOOLS
    """Tools that are run when the assistant calls them. If there are none, a call ends the answer."""


type Task = Callable[[int, int], Instance]
"""task(seed, number): always the same instance for the same arguments."""


def words_in_order(wanted: Sequence[str], messages: Sequence[Message]) -> float:
    """Return 1 for exactly these words; else, for the same number of words, half the share of words in their place."""
    found = messages[-1]["content"].split()
    if len(found) != len(wanted):
        return 0.0
    share = sum(map(str.__eq__, found, wanted)) / len(wanted)
    return share if share == 1 else share / 2


WORDS = (
    "apple bird boat book bread bridge chair church city cloud coat corn door dress field fire fish flower forest "
    "garden glass gold grass horse house island king lake lamp leaf letter market moon mountain music night ocean "
    "paper queen rain river road rock salt ship snow star stone street summer sun table tower tree village wall water "
    "wind winter wood"
)


def reverse_words(seed: int, number: int) -> Instance:
    """Return question `number` of a seed: three words to write in reverse order."""
    words = random.Random(f"{seed}/{number}").sample(WORDS.split(), 3)
    return Instance(f"Reverse: {' '.join(words)}", functools.partial(words_in_order, words[::-1]))


def sort_numbers(seed: int, number: int) -> Instance:
    """Return question `number` of a seed: three numbers below 30 to sort."""
    numbers = random.Random(f"{seed}/{number}").sample(range(30), 3)
    wanted = [*map(str, sorted(numbers))]
    return Instance(f"Sort: {' '.join(map(str, numbers))}", functools.partial(words_in_order, wanted))


SUM = re.compile(r"\s*(\d{1,9})\s*([-+*/])\s*(\d{1,9})\s*")
PHRASINGS = {
    "+": ("Add {a} and {b}.", "What is the sum of {a} and {b}?"),
    "-": ("What is left of {a} without {b}?", "How much is {a} less {b}?"),
    "*": ("Multiply {a} by {b}.", "What is {a} times {b}?"),
    "/": ("Divide {a} by {b}.", "Split {a} into {b} parts."),
}


def calculator(seed: int, number: int) -> Instance:
    """Call the calculator with the right expression for a question in words; half the reward if only the order of the
    numbers is wrong."""
    chance = random.Random(f"{seed}/{number}")
    operator, (a, b) = chance.choice([*PHRASINGS]), chance.sample(range(2, 60), 2)
    wanted = compute(f"{a} {operator} {b}")

    def check(messages: Sequence[Message]) -> float:
        match messages[-1].get("tool_calls"):
            case [{"function": {"name": "calculator", "arguments": {"expression": expression, **more}}}] if not more:
                # With the numbers of the question, the expression is not a guessed result.
                found = SUM.fullmatch(str(expression))
                if found and sorted((int(found[1]), int(found[3]))) == sorted((a, b)):
                    return 1.0 if compute(found[0]) == wanted else 0.5 * (found[2] == operator)
        return 0.0

    return Instance(chance.choice(PHRASINGS[operator]).format(a=a, b=b), check)


TASKS: dict[str, Task] = {"reverse_words": reverse_words, "sort_numbers": sort_numbers, "calculator": calculator}
"""{name in reinforce.task: task}."""
PAGE_QUESTIONS = "page_questions"
"""Task that launch.reinforce builds from the pages of the run (configs/recipes/page_questions.py)."""
REASONING_GYM = "reasoning_gym:"


def task_named(name: str) -> Task:
    """Return the task that reinforce.task names. Raises UsageError if there is none, its package is missing, or its
    code is not trusted."""
    if name.startswith(REASONING_GYM):
        return reasoning_gym_task(name.removeprefix(REASONING_GYM))
    if name not in TASKS and "." not in name:
        raise UsageError(
            f"reinforce.task is {name}. Choose one of {', '.join([*TASKS, PAGE_QUESTIONS])}, {REASONING_GYM}NAME, or "
            "name your own function as my_module.my_task."
        )
    return named(name, TASKS, "reinforce.task")


def reasoning_gym_task(name: str) -> Task:
    """Return a task of reasoning-gym (arXiv:2505.24760). Raises UsageError if it or the package is missing."""
    try:
        import reasoning_gym  # ty: ignore[import-not-found]

        dataset_of = functools.cache(lambda seed: reasoning_gym.create_dataset(name, seed=seed, size=2**31 - 1))
        dataset_of(0)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"reinforce.task is {REASONING_GYM}{name}: {error}. Install the package (make add PACKAGE=reasoning-gym), "
            "and name one of its tasks."
        ) from error

    def task(seed: int, number: int) -> Instance:
        dataset: Any = dataset_of(seed)
        entry = dataset[random.Random(number).randrange(len(dataset))]
        return Instance(
            entry["question"], lambda messages: dataset.score_answer(messages[-1]["content"].strip(), entry)
        )

    return task


def is_held_out(instance: Instance) -> bool:
    """Whether the instance is only for evaluation."""
    return hashlib.sha256(instance.question.encode()).digest()[0] % HELD_OUT == 0


def instance_at(task: Task, seed: int, number: int, held_out: bool) -> Instance:
    """Return instance `number` for evaluation (`held_out`) or for training; never one of the other part. Raises
    UsageError if the task seems to have none."""
    for attempt in range(MOST_TRIES):
        if is_held_out(found := task(seed, number + attempt * 2**32)) == held_out:
            return found
    raise UsageError(
        f"reinforce.task returned {MOST_TRIES:,} instances, but none {'to hold out' if held_out else 'to train on'}: "
        f"one of {HELD_OUT} is held out, by a hash of its question. A task must depend on its number."
    )
