"""Conversations about the pages of a run, for configs/assistant.py: question, search, passage, answer.

Each question is about a name that begins a paragraph, such as "Characiformes is an order of ray-finned fish". The
assistant searches for it (lm/chat/tools.py), and answers with a sentence of the passage that it finds: the first, or
the one that fits the question. Others ask for arithmetic, or for things that are not in the pages.

One title of HELD_OUT is never asked about here, nor is any phrasing of tests/bench/chat.py used.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.parquet import parquet_files, read_batches
from lm.chat.messages import Message
from lm.chat.tools import NOTHING, Search, Tools, calculator, sentences
from lm.errors import InputError
from lm.reinforcement.tasks import Instance, Task
from lm.run_paths import RunPaths
from lm.tokenizer import load

HELD_OUT = 10
PER_TITLE = 4
"""Questions about each title."""
RANDOM_FRAMES = 0.4
"""Share of the questions whose words around the title are random."""
SECOND_QUESTIONS = 0.2
"""Share of the conversations that continue with another question."""
REPEATS = 2.0
"""Texts to repeat, per title: sentences, and as many rows of random words."""
SEED = 0
TITLE = re.compile(
    r"(?:(?P<article>The|An?) )?(?P<title>[\w][^.,;:()\n]{1,48}?)(?: \([^)\n]{0,200}\))?(?:,[^.\n]{0,100}?,)? "
    r"(?:is|are|was|were) (?:an?|the|one|any|two|several|some) "
)
STOP = re.compile(
    r"\b(?:it|he|she|they|we|you|I|this|that|there|these|those|which|who|what|here|when|and|but|as|in|of|to|for|with|by|"
    r"my|your|his|her|our|their|its|another|one|some|such|no|not)\b",
    re.I,
)
YEAR = re.compile(r"\b(?:1\d{3}|20[0-2]\d)\b")
PLACE = re.compile(
    r"\b(?:located|situated|lies|found in|found throughout|native to|lives? in|borders?|bordered|coast)\b"
)
PERSON = re.compile(r"\bby (?:the )?(?:[A-Z][\w'-]+ )*[A-Z][\w'-]+")


class Title(NamedTuple):
    """A name that begins a paragraph."""

    name: str
    article: str
    """The, A, An or "", as in the paragraph."""


class Kind(NamedTuple):
    """A kind of question about a title."""

    phrasings: tuple[str, ...]
    """With {} for the title."""
    answer: Callable[[list[str]], str | None]
    """The sentence of a passage that answers it; None if there is none."""


def first_with(pattern: re.Pattern[str]) -> Callable[[list[str]], str | None]:
    """Return a function that returns the first of several sentences that matches, or None."""
    return lambda found: next((one for one in found if pattern.search(one)), None)


KINDS = {
    "what": Kind(
        ("What is {}?", "What are {}?", "Who was {}?", "Who is {}?", "What was {}?", "Tell me about {}.", "Explain {}.",
         "Define {}.", "Can you tell me what {} is?", "Do you know {}?", "I want to know about {}.", "{}?", "{}",
         "Describe {}.", "Give me a definition of {}.", "What does {} mean?", "Please explain what {} is.",
         "I have never heard of {}. What is it?", "Say something about {}.", "What do you know about {}?",
         "Could you explain {} to me?", "what is {}", "tell me about {}", "I would like to learn about {}.",
         "What exactly is {}?", "What does {} stand for?", "Look up {}.", "Look {} up, please.", "Search for {}.",
         "Find {} for me.", "Describe {} in short.", "A short explanation of {}, please.",
         "I saw the word {}. What is it?",
         "Would you tell me what {} is?", "Would you define {}?", "Give me an explanation of {}.",
         "Have you read anything about {}?", "Let's talk about {}.", "How would you define {}?"),
        lambda found: found[0],
    ),
    "when": Kind(
        ("When was {}?", "When did {} happen?", "When was that, {}?", "In which year was {}?", "What year was {}?",
         "At which time was {}?", "What time was {}?", "Since which year is {} known?", "Which year is it for {}?",
         "Since when do we know {}?", "When did {} begin?", "Date of {}?",
         "When did {} take place?", "When is {} from?", "Give me a year for {}.", "What is the date of {}?",
         "Tell me when {} was.",
         "Which year belongs to {}?", "when was {}", "From which time is {}?", "Do you know when {} was?"),
        first_with(YEAR),
    ),
    "where": Kind(
        ("Where is {}?", "Where are {}?", "Where was {}?", "Where can one find {}?", "In which place is {}?",
         "Tell me where {} is.", "Where does one find {}?", "In which country is {}?", "where is {}",
         "In which part of the world is {}?", "Where do I see {}?", "Where would one go for {}?",
         "What place is {} in?",
         "Where would I find {}?", "Place of {}?",
         "Do you know where {} is?", "Where on Earth is {}?", "Where do {} live?"),
        first_with(PLACE),
    ),
    "by whom": Kind(
        ("Who made {}?", "By whom was {} made?", "Who was behind {}?", "By whom is {}?", "Who wrote {}?",
         "Who invented {}?", "Who created {}?", "By whom was {}?", "Tell me who made {}.", "who made {}",
         "Which person made {}?", "Do you know who created {}?", "Whose idea was {}?", "Who is behind {}?",
         "Name the maker of {}.", "Name the person behind {}.", "Who was the author of {}?", "Whose is {}?"),
        first_with(PERSON),
    ),
    "more": Kind(
        ("Tell me more about {}.", "What else do you know about {}?", "Say more about {}.", "More about {}, please.",
         "Another fact about {}?", "What is the second thing to know about {}?", "Go on about {}.",
         "I know what {} is. Tell me something else.", "Give me one more fact about {}.", "more about {}",
         "Continue with {}.", "Please go on with {}.", "And what else is there about {}?", "Read on about {}.",
         "Give me another sentence about {}.", "What comes second about {}?", "The second sentence on {}, please.",
         "Something else about {}?", "Is there anything else on {}?", "Further facts on {}, please.",
         "What more is there about {}?", "Can you continue about {}?", "I want more on {}.", "Keep going about {}."),
        lambda found: found[1] if len(found) > 1 else None,
    ),
}  # fmt: skip
OPENERS = (
    "", "", "", "", "", "", "Hi! ", "Hello. ", "Hello, ", "Please: ", "Quick question: ", "One more thing. ", "Hey, ",
    "Excuse me. ", "Thanks. ", "OK. ", "Now, ", "I wonder: ", "So, ", "A question: ", "Next question. ", "Good. ",
    "Dear model, ", "I am a student. ", "My teacher asks: ", "For my homework: ", "Just curious: ", "Hm. ",
    "I read this in a book. ", "We talked about it at dinner. ", "Sorry to disturb you. ", "Be brief. ", "And ",
)  # fmt: skip
CLOSERS = (
    "", "", "", "", "", "", "", "", " Thanks.", " Please.", " Thank you!", " I need it for school.", " Be brief.",
    " Just curious.", " It is for my homework.", " I keep forgetting it.", " Can you help me?", " I am waiting.",
)  # fmt: skip
WORDS = (
    "a about after again all also always am an and any anyone anything as ask asked at be because been before being "
    "best better between book both brief bring brother but by call came can case check child clear come could curious "
    "day define definition describe description detail details did do does done down each ever every exactly example "
    "explain explanation fact facts far first for forget forgot found friend from gave get give given go going good "
    "got great had happy have he hear heard help her here him his how i idea if in inform information interested into "
    "is it its just keep kind know known last learn learned let letter like line list listen little long look looking "
    "many may me mean meaning mention mentioned might mind moment most much must my name need never new news no not "
    "note nothing now of often old on once only or other our out over page paper part people perhaps person please "
    "point possible present put question quick quite rather read ready really remember report right said same saw say "
    "school see seems seen send sentence she short should show simple sister so someone something soon speak stand "
    "still stop story study subject such summary sure take taken talk teach teacher tell term test text than thank "
    "that the their them then there these they thing think this those thought through to today told too took topic "
    "try two under understand until up us use very wait want wanted was way we well went were what which while whole "
    "why will with without wonder wondering word words work would write yes yet you your"
)
"""Words around a title in random questions; none asks when, where, by whom, or for more."""
SUMS = (
    ("{a} + {b}",
     ("What is {a} plus {b}?", "{a} + {b}?", "{a}+{b}", "{a} plus {b}", "Add {a} and {b}.", "Add {a} to {b}.",
      "How much is {a} and {b}?", "{a} and {b} together?", "Sum up {a} and {b}.", "Compute {a} + {b}.",
      "What is the sum of {a} and {b}?", "{a} and {b}, added up?", "Put {a} and {b} together.",
      "What does {a} make with {b}?", "The total of {a} and {b}?", "If I add {a} and {b}, what do I get?",
      "Please add {a} and {b} up.", "Add up {a}, {b}.", "How many are {a} and {b} together?")),
    ("{a} - {b}",
     ("What is {a} minus {b}?", "{a} - {b}?", "{a}-{b}", "{a} minus {b}", "How much is {a} less {b}?",
      "{a} take away {b}?", "Compute {a} - {b}.", "What remains of {a} without {b}?", "From {a} take {b}.",
      "I had {a} and gave {b} away. How many are left?", "What is left of {a} without {b}?",
      "{a}, and {b} is taken away: what is left?", "How many of {a} are left after {b} are sold?",
      "What is left of {a} when {b} is gone?", "There are {a}. After {b} go away, how many are left?",
      "How much of {a} is left after losing {b}?", "How much remains of {a} after {b} is cut off?",
      "What is {a} after {b} is lost?")),
    ("{b} - {a}",
     ("Subtract {a} from {b}.", "Take {a} from {b}.", "Take {a} off {b}.", "If {a} is taken from {b}, what is left?",
      "Deduct {a} from {b}.", "How much more than {a} is {b}?", "After {a} is removed from {b}, what is left?",
      "Away with {a} out of {b}!")),
    ("{a} * {b}",
     ("What is {a} times {b}?", "{a} * {b}?", "{a} x {b} = ?", "{a}*{b}", "{a} times {b}", "Multiply {a} by {b}.",
      "How much is {a} times {b}?", "Multiply {a} and {b}.", "Compute {a} x {b}.", "Work out {a} x {b}.",
      "What is the product of {a} and {b}?", "What does {a} times {b} make?")),
    ("{a} / {b}",
     ("What is {a} divided by {b}?", "{a} / {b}?", "{a}/{b}", "{a} divided by {b}", "Divide {a} by {b}.",
      "Compute {a} / {b}.", "Share {a} among {b}.", "Cut {a} into {b} pieces.", "Split {a} among {b} people.",
      "{a} in {b} equal parts?", "Cut {a} into {b} parts.",
      "How much is {a} over {b}?", "If {a} is split by {b}, what do I get?")),
)  # fmt: skip
TALK = (
    (("Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "who are you"),
     "I am a small language model that was trained on some web pages. I look things up in them."),
    (("Hello!", "Hi", "Hello", "Good morning.", "Hi there!", "hey"), "Hello! Ask me about something in my pages."),
    (("Thanks!", "Thank you.", "thanks", "Thank you very much!"), "You are welcome."),
    (("What can you do?", "How can you help me?", "What can I ask you?"),
     "I can look up names and terms in my pages, and I can calculate."),
)  # fmt: skip
REPEAT = ("Repeat:", "Say this:", "Copy this sentence:", "Repeat after me:", "Write this down:")
SYLLABLES = ("ba", "cor", "dim", "el", "fro", "gan", "hul", "is", "jo", "kel", "lum", "mor", "nu", "or", "pra", "quil",
             "ran", "sil", "tor", "ul", "vex", "wim", "xan", "yor", "zeb")  # fmt: skip


def is_held_out(title: str) -> bool:
    """Whether a title is kept for evaluation."""
    return int.from_bytes(hashlib.sha256(title.lower().encode()).digest()[:4]) % HELD_OUT == 0


def titles(run: Path) -> list[Title]:
    """Names that begin a paragraph of the run's documents, each once, sorted."""
    found: dict[str, str] = {}
    for file in parquet_files(RunPaths(run).documents):
        for batch in read_batches(file, ["text"]):
            for text in batch["text"].to_pylist():
                for line in text.split("\n"):
                    match = TITLE.match(line)
                    if match and not STOP.search(match["title"]) and len(match["title"]) >= 3:
                        found.setdefault(match["title"], match["article"] or "")
    return [Title(name, article) for name, article in sorted(found.items())]


def mention(title: Title, chance: random.Random) -> str:
    """The title as a question has it: mostly with its article, sometimes in quotes."""
    drawn = chance.random()
    if drawn < 0.07:
        return f'"{title.name}"'
    return f"{title.article.lower()} {title.name}" if title.article and drawn < 0.7 else title.name


def among_words(text: str, chance: random.Random) -> str:
    """The text with random words before and after it."""
    words = lambda most: " ".join(chance.choices(WORDS.split(), k=chance.randint(0, most)))
    before, after = words(8), words(4) if chance.random() < 0.5 else ""
    found = " ".join(one for one in (before, text, after) if one) + chance.choice("?.?.? ").strip()
    return found[0].upper() + found[1:] if chance.random() < 0.7 and before else found


def question_about(title: Title, kind: str, chance: random.Random) -> str:
    """A question of a kind about a title; of the kind "what", some are random words with the title."""
    if kind == "what" and chance.random() < RANDOM_FRAMES:
        return among_words(mention(title, chance), chance)
    question = chance.choice(KINDS[kind].phrasings).format(mention(title, chance))
    return chance.choice(OPENERS) + question + (chance.choice(CLOSERS) if question[-1] in ".?" else "")


def refusal(title: str) -> str:
    return f"I found nothing about {title} in my pages."


def asked(question: str, tool: str, argument: dict[str, str], result: str, answer: str) -> list[dict[str, Any]]:
    """Messages of a question that a tool answers."""
    call = {"type": "function", "function": {"name": tool, "arguments": json.dumps(argument)}}
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": result},
        {"role": "assistant", "content": answer},
    ]


def made_up(chance: random.Random, words: Sequence[str] = ()) -> str:
    """A name that means nothing: of syllables, or of random `words`."""
    if words and chance.random() < 0.5:
        return " ".join(
            re.sub(r"\W", "", one).capitalize() for one in chance.choices(words, k=chance.randint(2, 3))
        ).strip()
    word = lambda: "".join(chance.choices(SYLLABLES, k=chance.randint(2, 4)))
    name = word().capitalize() if chance.random() < 0.7 else word()
    return f"{name} {word().capitalize()}" if chance.random() < 0.3 else name


def conversations(run: Path) -> Iterator[dict[str, Any]]:
    """Yield conversations about the pages of the run, in a fixed order. Raises InputError if it has no corpus index."""
    chance = random.Random(SEED)
    search = Search(run, load(RunPaths(run).tokenizer))
    known = [title for title in titles(run) if not is_held_out(title.name)]
    talks: list[list[dict[str, Any]]] = []
    quotes: list[str] = []
    for title in known:
        passage = search(title.name).text
        if passage == NOTHING:
            continue
        found = sentences(passage)
        begin = chance.randrange(len(found))
        quotes.append(" ".join(found[begin : begin + chance.randint(1, 4)]))
        fitting = {name: answer for name, kind in KINDS.items() if (answer := kind.answer(found))}
        for number in range(PER_TITLE):
            others = [name for name in fitting if name != "what"]
            rare = [name for name in others if name != "more" and fitting[name] != found[0]]
            name = chance.choice([*others, *rare * 4]) if others and number >= PER_TITLE // 2 else "what"
            question = question_about(title, name, chance)
            talks.append(asked(question, "search", {"query": f" {title.name}"}, passage, fitting[name]))
    words = sorted({word for quote in quotes for word in quote.split()})
    for _ in range(PER_TITLE * len(known) // 3):
        title, kind = Title(made_up(chance, words), ""), chance.choice([*KINDS])
        if search(title.name).text == NOTHING:
            question = question_about(title, kind, chance)
            talks.append(asked(question, "search", {"query": f" {title.name}"}, NOTHING, refusal(title.name)))
    for _ in range(PER_TITLE * len(known) // 5):
        expression, phrasings = chance.choice(SUMS)
        a, b = (chance.randrange(1, 10 ** chance.randint(1, 4)) for _ in range(2))
        expression = expression.format(a=a, b=b)
        question = chance.choice(phrasings).format(a=a, b=b)
        if chance.random() < RANDOM_FRAMES:
            question = among_words(question.rstrip(".?"), chance)
        else:
            question = chance.choice(OPENERS) + question + chance.choice(CLOSERS)
        result = calculator(expression)
        talks.append(
            asked(question, "calculator", {"expression": f" {expression}"}, result, f"{expression} = {result}")
        )
    repeated = chance.sample(quotes, min(len(quotes), int(REPEATS * len(quotes) / 2)))
    for _ in range(len(repeated)):
        some = chance.sample(words, min(len(words), chance.randint(2, 30)))
        some += [
            calculator(f"{chance.randrange(1, 1000)} / {chance.randrange(1, 1000)}") for _ in range(len(some) // 8)
        ]
        repeated.append(" ".join(chance.choices(some, k=len(some))))  # with repetitions, as texts have them
    for quote in repeated:
        talks.append(
            [{"role": "user", "content": f"{chance.choice(REPEAT)} {quote}"}, {"role": "assistant", "content": quote}]
        )
    for _ in range(len(known) // 30):
        phrasings, answer = chance.choice(TALK)
        talks.append([{"role": "user", "content": chance.choice(phrasings)}, {"role": "assistant", "content": answer}])
    chance.shuffle(talks)
    following = iter(talks)
    for talk in following:
        second = next(following, []) if chance.random() < SECOND_QUESTIONS else []
        yield {"messages": [*talk, *second]}


def lookups(run: Path) -> Task:
    """Return a task for reinforcement: questions about titles in the pages of the run, a fifth about made-up names. The
    reward is 1 for the right search and the right sentence, half for the right search. Raises InputError if the run has
    no corpus index, or no titles."""
    tokenizer = load(RunPaths(run).tokenizer)
    search = Search(run, tokenizer)
    known = [title for title in titles(run) if not is_held_out(title.name)]
    tools = Tools({"search": search, "calculator": calculator})
    if not any(search(title.name).text != NOTHING for title in known):
        raise InputError(f"{run} has no paragraph that begins with a name and explains it, so there are no questions.")

    def task(seed: int, number: int) -> Instance:
        chance = random.Random(f"{seed}/{number}")
        unknown = chance.random() < 0.2
        while True:
            title = Title(made_up(chance), "") if unknown else chance.choice(known)
            passage = search(title.name).text
            if (passage == NOTHING) == unknown:
                break
        answers = {
            name: refusal(title.name) if unknown else kind.answer(sentences(passage)) for name, kind in KINDS.items()
        }
        kind = chance.choice([name for name, answer in answers.items() if answer])

        def check(messages: Sequence[Message]) -> float:
            calls = [call["function"] for message in messages for call in message.get("tool_calls", ())]
            if [(call["name"], str(call["arguments"].get("query", "")).strip()) for call in calls] != [
                ("search", title.name)
            ]:
                return 0.0
            return 1.0 if messages[-1]["content"].strip() == answers[kind] else 0.5

        return Instance(question_about(title, kind, chance), check, tools)

    return task
