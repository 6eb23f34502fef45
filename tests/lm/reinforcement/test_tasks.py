"""The checks of tasks accept the right answers and refuse wrong ones."""

import re
import sys
import types

import pytest

from lm.chat.messages import Message
from lm.chat.tools import calculator as compute
from lm.errors import UsageError
from lm.reinforcement.tasks import TASKS, Instance, instance_at, is_held_out, task_named
from tests.test_house import REPOSITORY


def said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def called(expression: object, name: str = "calculator", **more: object) -> list[Message]:
    function = {"name": name, "arguments": {"expression": expression, **more}}
    return [{"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}]


def words_of(instance: Instance) -> list[str]:
    return instance.question.split()[1:]


@pytest.mark.parametrize(("name", "right"), [("reverse_words", lambda x: x[::-1]),
                                             ("sort_numbers", lambda x: sorted(x, key=int))])  # fmt: skip
def test_orders_are_checked(name, right):
    for number in range(50):
        instance = TASKS[name](3, number)
        wanted = right(words_of(instance))
        assert instance.check(said(" ".join(wanted))) == 1
        other = [wanted[0], wanted[2], wanted[1]]
        assert 0 < instance.check(said(" ".join(other))) < 0.5
        for wrong in (wanted[:2], [*wanted, wanted[0]], [], ["x", "y", "z"]):
            assert instance.check(said(" ".join(wrong))) == 0


def test_calls_of_the_calculator_are_checked():
    for number in range(50):
        instance = TASKS["calculator"](3, number)
        a, b = sorted(int(word.strip(".?")) for word in words_of(instance) if word.strip(".?").isdecimal())
        results = {f"{x} {sign} {y}": instance.check(called(f"{x} {sign} {y}"))
                   for x, y in ((a, b), (b, a)) for sign in "+-*/"}  # fmt: skip
        solved = [expression for expression, reward in results.items() if reward == 1]
        assert 1 <= len(solved) <= 3 and {*results.values()} <= {0, 0.5, 1}
        assert sum(reward == 0.5 for reward in results.values()) <= 1, "only the other order of the same operator"
        wanted = solved[0]
        assert instance.check(called(compute(wanted))) == 0, "a guessed result is no call of the calculator"
        twice = called(wanted)[0]["tool_calls"] * 2
        wrong = [called(wanted, "search"), called(wanted, more=1), said(wanted), called(["1"]), [{"tool_calls": twice}]]
        assert not any(map(instance.check, wrong))


@pytest.mark.parametrize("name", TASKS)
def test_constant_answers_score_below_a_fifth(name):
    instances = [instance_at(TASKS[name], 0, number, True) for number in range(200)]
    answers = [called(f"{a} {sign} {b}") for a, b in ((3, 4), (20, 10)) for sign in "+-*/"]
    answers += [said(" ".join(words_of(one))) for one in instances[:8]] + [said("5 10 20"), said("")]
    for answer in answers:
        assert sum(one.check(answer) for one in instances) / len(instances) < 0.2


@pytest.mark.parametrize("name", TASKS)
def test_training_never_sees_a_held_out_instance(name):
    seen = {held_out: {instance_at(TASKS[name], seed, number, held_out).question
                       for seed in (0, 1) for number in range(300)} for held_out in (True, False)}  # fmt: skip
    assert not seen[True] & seen[False] and len(seen[True]) > 100
    assert TASKS[name](7, 5).question == TASKS[name](7, 5).question


def test_a_task_that_ignores_its_number_is_refused():
    one = Instance("Why?", lambda messages: 1.0)
    with pytest.raises(UsageError, match="must depend on its number"):
        instance_at(lambda seed, number: one, 0, 0, not is_held_out(one))


def test_tasks_of_reasoning_gym_do_not_repeat_their_questions(monkeypatch):
    class Dataset:
        def __init__(self, size):
            self.size = size

        def __len__(self):
            return self.size

        def __getitem__(self, at):
            return {"question": f"What is {at}?", "answer": str(at)}

        def score_answer(self, answer, entry):
            return float(answer == entry["answer"])

    made = lambda name, seed, size: Dataset(size)
    monkeypatch.setitem(sys.modules, "reasoning_gym", types.SimpleNamespace(create_dataset=made))
    task = task_named("reasoning_gym:numbers")
    found = [instance_at(task, 0, number, True) for number in range(300)]
    assert len({one.question for one in found}) == 300
    assert found[0].check(said(f" {found[0].question.split()[-1].strip('?')} ")) == 1


@pytest.mark.parametrize("name", ["sums", "reasoning_gym:no_such_task", "no_module_here.task"])
def test_unknown_tasks_are_refused(name):
    with pytest.raises(UsageError, match=r"reinforce\.task"):
        task_named(name)


def test_the_task_of_the_page_rewards_as_it_says():
    page = (REPOSITORY / "docs/assistant.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```python my_task\.py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(source, module := {})
    for number in range(20):
        instance = instance_at(module["add"], 0, number, held_out=number % 2 == 0)
        total = sum(map(int, re.findall(r"\d+", instance.question)))
        answers = (f"It is {total} .", 1.0), ("It is 5 .", 1.0 if total == 5 else 0.1), ("None.", 0.0)
        for text, reward in answers:
            assert instance.check([{"role": "assistant", "content": text}]) == reward
    fields = re.findall(r"^\| `(\w+)", page.partition("| field of `Instance` |")[2].partition("\n\n")[0], re.MULTILINE)
    assert fields == [*Instance._fields]
