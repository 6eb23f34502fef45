"""Answer in a conversation: generate a reply, run the tools that it calls, and continue with their results."""

import bisect
import dataclasses
import itertools
import operator
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from lm.chat.messages import Message
from lm.chat.reply import Reply
from lm.chat.template import ChatTemplate, strings_in
from lm.chat.tools import Result, Tools
from lm.inference.requests import GenerationEvent, GenerationRequest, SamplingParams, TokenLogprob

if TYPE_CHECKING:
    from lm.inference.engine import Engine

MOST_ROUNDS = 4
"""Maximum rounds of calls in one answer."""
TEMPERATURE = 0.0
"""Temperature of answers in the terminal, the window and the server, if none is given: always the most likely token."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an answer: a piece of text, a finished message, or the result of a tool."""

    text: str = ""
    """New text to show."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """If requested: of the tokens of the text."""
    message: Message | None = None
    """Message of the assistant or of a tool, to be added to the conversation."""
    result: Result | None = None
    """With the message of a tool: what it returned."""
    finish_reason: str = ""
    """With the last message: stop, length, or tool_calls if the answer ends with calls that were not run."""


class Answer:
    """An answer of the assistant: replies, and the results of the tools that they call.

    Until it has a finish_reason: generate `request`, pass the events to `read`, and call `follow`.
    """

    def __init__(
        self, template: ChatTemplate, tools: Tools, messages: Sequence[Message], params: SamplingParams, context: int,
        *, reads_calls: bool = True, forgets: bool = False, offered: Collection[str] | None = None,
        prompt: tuple[int, ...] = (),
    ):  # fmt: skip
        """`params.max_tokens` is the limit of all replies together. `context` is the maximum number of tokens of the
        conversation. Without `reads_calls`, calls in replies are text. Calls of other tools than `offered`, if given,
        are left out, with their names in `refused`. With `forgets`, replies are generated without the oldest questions,
        so that half of the context is free (`recent`). `prompt` has the token ids of the messages, if they are encoded
        already. Raises like ChatTemplate.encode."""
        self.template, self.tools, self.params, self.context = template, tools, params, context
        self.messages, self.reads_calls, self.forgets = list(messages), reads_calls, forgets
        self.left, self.offered, self.refused = params.max_tokens, offered, list[str]()
        self.shows_text = False
        """Whether it has text so far."""
        self.finish_reason = ""
        """Finish reason of the last reply; empty until it ends, and if tools are run and another reply follows."""
        self.replies: list[tuple[GenerationRequest, list[TokenLogprob]]] = []
        """Each request so far, and the log-probabilities of its new tokens, if requested."""
        self.begin(prompt or self.prompt())

    def prompt(self) -> tuple[int, ...]:
        read = recent(self.template, self.messages, self.context // 2, sys.maxsize) if self.forgets else self.messages
        return tuple(self.template.encode(read, reply=True).ids.tolist())

    def begin(self, prompt: tuple[int, ...]) -> None:
        """Begin a reply."""
        self.request = GenerationRequest(prompt, dataclasses.replace(self.params, max_tokens=self.left))
        self.reply = Reply(self.template.tokenizer, self.params.stop, self.reads_calls)
        self.replies.append((self.request, []))

    def read(self, event: GenerationEvent) -> Iterator[Step]:
        """Yield the text of an event; after the last event of a reply also text that was withheld, and the message. The
        message has a finish_reason if it ends the answer."""
        self.left -= len(event.tokens)
        self.replies[-1][1].extend(event.logprobs)
        text, scored = "", list[TokenLogprob]()
        for number, token in enumerate(event.tokens):
            text += self.reply.push(token)
            if not self.reply.in_calls:
                scored += event.logprobs[number : number + 1]
        self.shows_text |= bool(text)
        if text or scored:
            yield Step(text, tuple(scored))
        if event.finish_reason is None:
            return
        cut = event.finish_reason == "length"
        rest, message = self.reply.finish(cut)  # the arguments of a truncated call may be incomplete
        self.shows_text |= bool(rest)
        if rest:
            yield Step(rest)
        if self.offered is not None and "tool_calls" in message:
            names = [call["function"]["name"] for call in message["tool_calls"]]
            self.refused = [name for name in names if name not in self.offered]
            kept = [call for call, name in zip(message.pop("tool_calls"), names, strict=True) if name in self.offered]
            message |= {"tool_calls": kept} if kept else {}
        calls = "tool_calls" in message
        runs = calls and self.tools.functions and len(self.replies) <= MOST_ROUNDS
        self.finish_reason = "length" if cut else "" if runs else "tool_calls" if calls else "stop"
        self.messages.append(message)
        yield Step(message=message, finish_reason=self.finish_reason)

    def follow(self) -> Iterator[Step]:
        """Unless the answer has ended: run the calls of the last message, yield the message of each result, and begin
        another reply. If the context or `max_tokens` has no room for it, yield the last step. Raises like
        ChatTemplate.encode."""
        if self.finish_reason:
            return
        for call in self.messages[-1]["tool_calls"]:
            function = call["function"]
            result = self.tools.call(function["name"], function["arguments"])
            tool = {"role": "tool", "name": function["name"], "content": result.text}
            if "id" in call:
                tool["tool_call_id"] = call["id"]
            self.messages.append(tool)
            yield Step(message=tool, result=result)
        prompt = self.prompt()
        if self.left > 0 and len(prompt) < self.context:
            self.begin(prompt)
        else:
            self.finish_reason = "length"
            yield Step(message={"role": "assistant", "content": ""}, finish_reason="length")


def recent(
    template: ChatTemplate, messages: Sequence[Message], most: int, most_characters: int, tools: Sequence[Message] = ()
) -> list[Message]:
    """Return the messages without the oldest questions and their answers, so that `most` tokens and `most_characters`
    are enough. The system message and the last question always stay. Raises like ChatTemplate.encode.

    Encodes what is expected to fit from the tokens per character that it has found, so that its time does not grow with
    the messages that are left out.
    """
    begin = 1 if messages and messages[0]["role"] == "system" else 0
    starts = [*dict.fromkeys([begin, *(at for at, message in enumerate(messages) if message["role"] == "user")])]
    lengths = [sum(map(len, strings_in(message))) for message in messages]
    from_start = [*itertools.accumulate(reversed(lengths), initial=0)][::-1]
    sizes = [sum(lengths[:begin]) + from_start[start] for start in starts]
    kept = lambda at: [*messages[:begin], *messages[starts[at] :]]
    fits = len(starts) - 1
    fails = min(sum(size > most_characters for size in sizes), fits) - 1
    expected = 4 * most  # characters of `most` tokens
    for number in itertools.count():
        if fits - fails <= 1:
            break
        at = bisect.bisect_left(sizes, -expected, key=operator.neg)
        at = (fails + fits) // 2 if number % 3 == 2 else min(max(at, fails + 1), fits - 1)
        tokens = len(template.encode(kept(at), tools, reply=True).ids)
        fits, fails = (at, fails) if tokens <= most else (fits, at)
        expected = sizes[at] * most // max(tokens, 1)
    return kept(fits)


def generate_answers(engine: "Engine", *answers: Answer) -> Iterator[tuple[Answer, Step]]:
    """Generate the answers together; yield (answer, step), as they are generated.

    Raises UsageError if a conversation does not fit into the context, before anything is computed, and like
    ChatTemplate.encode.
    """
    for answer in answers:
        engine.check(answer.request)
    running = {engine.submit(answer.request): answer for answer in answers}
    while running:
        for event in engine.step():
            answer = running[event.request_id]
            yield from ((answer, step) for step in answer.read(event))
            if event.finish_reason is not None:
                del running[event.request_id]
                yield from ((answer, step) for step in answer.follow())
                if not answer.finish_reason:
                    running[engine.submit(answer.request)] = answer
