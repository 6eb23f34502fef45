"""The demo's conversations: what they ask about, that their answers are right, and the task that is made of them."""

import itertools
import json
import random
import re
import shutil

import pytest

from configs.recipes.page_questions import KINDS, SUMS, conversations, is_held_out, lookups, refusal, titles
from lm.chat.messages import Message
from lm.chat.tools import NOTHING, calculator, sentences
from lm.errors import InputError
from tests.assistant_run import write_index
from tests.bench.chat import PHRASINGS, SUM_PHRASINGS

NAMES = [f"{one} {other}" for one in ("Red", "Old", "Far") for other in ("Brem", "Tolva", "Quist", "Ember", "Mill")]


WORDS = ("mill", "flour", "baker", "judge", "horse", "sea", "tower", "north", "rain", "bread")


def page(number: int, name: str) -> str:
    words = random.Random(number).choices(WORDS, k=12)
    return (f"{name} is a {words[0]} of the {words[1]} {words[2]}. It was built in 18{number:02d} with {words[3]}, "
            f"{words[4]} and {words[5]}. It is located at a {words[6]}, a {words[7]}.\n" + " ".join(words))  # fmt: skip


PAGES = {f"https://{name.split()[0]}.example/{number}": page(number, name) for number, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_index(folder, PAGES)
    return folder


def test_no_phrasing_of_the_evaluation_is_trained_on():
    asked = {one.format("x").lower() for kind in KINDS.values() for one in kind.phrasings}
    sums = {one for _, phrasings in SUMS for one in phrasings}
    assert not asked & {one.format("x").lower() for some in PHRASINGS.values() for one in some}
    assert not sums & {*itertools.chain(*SUM_PHRASINGS.values())}


def test_conversations_ask_about_titles_that_are_not_held_out_and_have_right_answers(run):
    found = [one.name for one in titles(run)]
    held = [name for name in found if is_held_out(name)]
    assert sorted(found) == sorted(NAMES) and 0 < len(held) < 8
    questions = {"search": 0, "calculator": 0, "refused": 0, "second": 0}
    for talk in (one["messages"] for one in conversations(run)):
        assert not any(name in message["content"] for name in held for message in talk)
        questions["second"] += [message["role"] for message in talk].count("user") > 1
        for call, result, answer in zip(talk[1:], talk[2:], talk[3:], strict=False):
            if "tool_calls" not in call:
                continue
            (function,) = [one["function"] for one in call["tool_calls"]]
            questions[function["name"]] += 1
            arguments = json.loads(function["arguments"])
            if function["name"] == "calculator":
                expression = arguments["expression"].strip()
                assert answer["content"] == f"{expression} = {calculator(expression)}"
            elif result["content"] == NOTHING:
                questions["refused"] += 1
                assert answer["content"] == refusal(arguments["query"].strip())
            else:
                assert answer["content"] in sentences(result["content"])
    assert all(count > 3 for count in questions.values())


def searched(query: object, answer: str, times: int = 1) -> list[Message]:
    call = {"function": {"name": "search", "arguments": {"query": query}}}
    return [{"role": "assistant", "content": "", "tool_calls": [call] * times}, {"role": "tool", "content": ""},
            {"role": "assistant", "content": answer}]  # fmt: skip


def test_lookups_are_rewarded_for_the_right_search_and_the_right_sentence(run):
    task, right, unknown = lookups(run), set(), 0
    for number in range(60):
        instance = task(0, number)
        name = next((one for one in NAMES if one in instance.question), None)
        if name is None:  # a made-up name, which is some words of the question
            words = re.findall(r"[\w-]+", instance.question)
            spans = [" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
            assert 1.0 in [instance.check(searched(one, refusal(one))) for one in spans]
            unknown += 1
            continue
        assert not is_held_out(name)
        found = sentences(instance.tools.call("search", {"query": name}).text)
        rewards = [instance.check(searched(name, one)) for one in found]
        assert sorted(rewards) == [0.5, 0.5, 1.0]
        right.add(rewards.index(1.0))
        answer = found[rewards.index(1.0)]
        wrong = [searched("Brem", answer), searched(name, answer, times=2), searched(name, answer)[2:]]
        wrong += [searched(query, answer) for query in (5, None, [name])]
        assert not any(instance.check(one) for one in wrong)
    assert right == {0, 1, 2} and 5 < unknown < 25
    assert task(0, 7).question == lookups(run)(0, 7).question != task(1, 7).question


def test_a_run_without_an_index_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("corpus_index"))
    with pytest.raises(InputError, match=r"launch\.index_corpus"):
        lookups(tmp_path / "run")
