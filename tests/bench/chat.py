"""Score of the demo's assistant on questions that finetuning never saw.

    python -m tests.bench.chat [--run runs/assistant] [--questions 1000]

The titles are held out (configs/recipes/page_questions.py), the phrasings are those below. Decoding is greedy. A row
for each kind of question: the share answered by the right sentence of the right passage, the share of right searches,
of refusals of made-up names, and of right calculations. The same without tools, of second questions, which are asked
in the conversation of another, and of the base model, which continues three examples of questions with their answers.
"""

import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.experiment.run_folder import RunFolder
from configs.recipes.page_questions import KINDS, is_held_out, made_up, refusal, titles
from lm.chat.assistant import Answer, generate_answers, recent
from lm.chat.template import ChatTemplate
from lm.chat.tools import NOTHING, Search, Tools, calculator, sentences
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from tests.bench.runner import SkippedError, run_benchmark

PHRASINGS = {
    "what": ("Would you explain to me what {} is?", "I came across the word {}. What does it stand for?",
             "Give me a short description of {}.", "Hi there, what exactly is {}?", "Look up {} for me."),
    "when": ("At what time did {} take place?", "Which year should I remember for {}?", "Since when is there {}?"),
    "where": ("In what part of the world is {}?", "Where would I go to see {}?", "Where can {} be seen?"),
    "by whom": ("Whose work is {}?", "Who is the author of {}?", "Name the person who made {}."),
    "more": ("Anything else about {}?", "Please continue about {}.", "Give me a second sentence about {}."),
}  # fmt: skip
SUM_PHRASINGS = {
    "{a} + {b}": ("Please add up {a} and {b}.", "What do {a} and {b} make together?"),
    "{a} - {b}": ("Take {b} away from {a}.", "What is left of {a} after {b} is taken away?"),
    "{a} * {b}": ("What do you get for {a} times {b}?", "Work out {a} * {b} for me."),
    "{a} / {b}": ("Split {a} into {b} parts.", "What do you get for {a} divided by {b}?"),
}
SEED = 1
ROWS = 16
MOST_TOKENS = 128


def questions(run: Path, search: Search, count: int) -> list[dict[str, Any]]:
    """The questions, of which a fifth are about made-up names, and as many more sums."""
    chance, found = random.Random(SEED), []
    held = [title for title in titles(run) if is_held_out(title.name)]
    chance.shuffle(held)
    for title in held:
        passage = search(title.name).text
        kinds = {name: answer for name, kind in KINDS.items() if (answer := kind.answer(sentences(passage)))}
        if passage == NOTHING or len(found) >= count * 4 // 5:
            continue
        others = [name for name in kinds if name != "what" and kinds[name] != kinds["what"]]
        name = chance.choice(others) if others and chance.random() < 0.5 else "what"
        question = chance.choice(PHRASINGS[name]).format(f"{title.article.lower()} {title.name}".strip())
        found.append({"kind": name, "first": kinds[name] == kinds["what"], "question": question, "query": title.name,
                      "answer": kinds[name]})  # fmt: skip
    while len(found) < count:
        title, kind = made_up(chance), chance.choice([*PHRASINGS])
        if search(title).text == NOTHING:
            question = chance.choice(PHRASINGS[kind]).format(title)
            found.append({"kind": "unknown", "question": question, "query": title, "answer": refusal(title)})
    for _ in range(count // 5):
        form = chance.choice([*SUM_PHRASINGS])
        a, b = (chance.randrange(1, 10 ** chance.randint(1, 4)) for _ in range(2))
        expression = form.format(a=a, b=b)
        found.append({"kind": "sum", "question": chance.choice(SUM_PHRASINGS[form]).format(a=a, b=b),
                      "query": expression, "answer": f"{expression} = {calculator(expression)}"})  # fmt: skip
    return found


def answers(
    engine: Engine, template: ChatTemplate, tools: Tools, asked: list[dict[str, Any]], before: list[list[Any]]
) -> list[list[Any]]:
    """The messages of the answers, each after the messages `before` it, without the oldest if they are too long."""
    params, running = SamplingParams(max_tokens=MOST_TOKENS, temperature=0.0), []
    for one, talk in zip(asked, before, strict=True):
        messages = [*talk, {"role": "user", "content": one["question"]}]
        messages = recent(template, messages, engine.context // 2, sys.maxsize)  # as launch.chat
        running.append(Answer(template, tools, messages, params, engine.context, forgets=True))
    begins = [len(one.messages) for one in running]
    for _ in generate_answers(engine, *running):
        pass
    return [one.messages[begin:] for one, begin in zip(running, begins, strict=True)]


def continued(base: Path, search: Search, asked: list[dict[str, Any]]) -> list[str]:
    """The line with which the base model continues three examples and each question."""
    loaded = RunFolder(base).load()
    engine = Engine(loaded.model, loaded.experiment.model, loaded.tokenizer, slots=ROWS, mesh=loaded.mesh)
    some = [title for title in titles(base) if not is_held_out(title.name) and search(title.name).text != NOTHING][:3]
    pairs = [(f"What is {title.name}?", sentences(search(title.name).text)[0]) for title in some]
    examples = "".join(f"Question: {question}\nAnswer: {answer}\n" for question, answer in pairs)
    params = SamplingParams(max_tokens=64, temperature=0.0, stop=("\n",))
    prompts = [loaded.tokenizer.prompt_ids(f"{examples}Question: {one['question']}\nAnswer:") for one in asked]
    requests = [GenerationRequest(tuple(prompt[-engine.context + 65 :]), params) for prompt in prompts]
    return [done.text for done in engine.complete(requests)]


def figures(run: str = "runs/assistant", questions_asked: int = 1000, show: int = 0) -> Iterator[dict[str, Any]]:
    folder = RunFolder(Path(run))
    if not folder.config_json.is_file():
        raise SkippedError(f"there is no finetuned run in {run}: make chat")
    loaded = folder.load()
    base = Path(loaded.experiment.chat.base)
    search = Search(base, loaded.tokenizer)
    template = ChatTemplate(loaded.tokenizer)
    engine = Engine(loaded.model, loaded.experiment.model, loaded.tokenizer, slots=ROWS, mesh=loaded.mesh)
    asked = questions(base, search, questions_asked)
    every = Tools({"search": search, "calculator": calculator})
    before: list[list[Any]] = [[] for _ in asked]
    for name, tools in (("without", Tools()), ("with tools", every), ("second question", every)):
        scores: dict[str, list[float]] = defaultdict(list)
        searches: list[float] = []
        talks = answers(engine, template, tools, asked, before)
        for number, (one, talk) in enumerate(zip(asked, talks, strict=True)):
            right = talk[-1].get("content", "").strip() == one["answer"].strip()
            calls = [call["function"]["arguments"] for call in talk[0].get("tool_calls", ())]
            scores[one["kind"]].append(right)
            if one["kind"] not in ("unknown", "sum"):
                scores["first sentence" if one["first"] else "another sentence"].append(right)
                searches.append([one["query"]] == [str(call.get("query", "")).strip() for call in calls])
            if number < show:
                yield {"what": "talk", "question": one["question"], "right": right, "talk": talk}
        for kind, some in scores.items():
            yield {"what": kind, "tools": name, "right": round(sum(some) / len(some), 3), "questions": len(some)}
        yield {"what": "search", "tools": name, "right": round(sum(searches) / len(searches), 3)}
        if name == "with tools":  # the conversation of the question before it in the list
            whole = [
                [{"role": "user", "content": one["question"]}, *talk] for one, talk in zip(asked, talks, strict=True)
            ]
            before = [whole[-1], *whole[:-1]]
    lines = continued(base, search, asked)
    right = sum(line.strip() == one["answer"] for line, one in zip(lines, asked, strict=True))
    yield {"what": "all", "tools": "base model", "right": round(right / len(asked), 3), "questions": len(asked),
           "example": f"{asked[0]['question']} {lines[0].strip()}"}  # fmt: skip


if __name__ == "__main__":
    run_benchmark(figures)
