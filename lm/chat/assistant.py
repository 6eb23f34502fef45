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
from lm.inference.requests import Completion, GenerationEvent, GenerationRequest, SamplingParams, TokenLogprob

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


NO_ROOM = Step(message={"role": "assistant", "content": ""}, finish_reason="length")
"""Last step of an answer that has no room for another reply."""


class Answer:
    """An answer of the assistant, reply by reply.

    The caller generates a reply, passes its events to `read` and calls `finish`. If that returns no finish_reason, the
    caller runs the tools (`run_tools`) and generates the next reply from `next_request`.
    """

    def __init__(
        self, template: ChatTemplate, tools: Tools, messages: Sequence[Message], params: SamplingParams, context: int,
        reads_calls: bool = True, forgets: bool = False, offered: Collection[str] | None = None,
    ):  # fmt: skip
        """`params.max_tokens` is the limit of all replies together. `context` is the maximum number of tokens of the
        conversation. Without `reads_calls`, calls in replies are text. Calls of other tools than `offered`, if given,
        are left out, with their names in `refused`. With `forgets`, replies after results of tools
        are generated without the oldest questions, so that half of the context is free (`recent`)."""
        self.template, self.tools, self.params, self.context = template, tools, params, context
        self.messages, self.reads_calls, self.forgets = list(messages), reads_calls, forgets
        self.left, self.rounds = params.max_tokens, 0
        self.offered, self.refused = offered, list[str]()
        self.reason = ""
        """Finish reason of the last reply; empty until it ends."""
        self.finish_reason = ""
        """Finish reason of the whole answer; empty until it ends."""
        self.reply = Reply(template.tokenizer, params.stop, reads_calls)

    def read(self, event: GenerationEvent | Completion) -> Step:
        """Add an event of the reply, or the whole reply, and return its text."""
        self.left -= len(event.tokens)
        self.reason = event.finish_reason or self.reason
        text, scored = "", list[TokenLogprob]()
        for number, token in enumerate(event.tokens):
            text += self.reply.push(token)
            if not self.reply.in_calls:
                scored += event.logprobs[number : number + 1]
        return Step(text, tuple(scored))

    def finish(self) -> list[Step]:
        """Return the withheld text of the reply, if any, and its message. It is the last step of the answer if it has a
        finish_reason."""
        cut = self.reason == "length"
        rest, message = self.reply.finish(cut)  # the arguments of a truncated call may be incomplete
        if self.offered is not None and "tool_calls" in message:
            names = [one["function"]["name"] for one in message["tool_calls"]]
            self.refused = [name for name in names if name not in self.offered]
            kept = [one for one, name in zip(message.pop("tool_calls"), names, strict=True) if name in self.offered]
            message |= {"tool_calls": kept} if kept else {}
        calls = "tool_calls" in message
        runs = calls and self.tools.functions and self.rounds < MOST_ROUNDS
        self.finish_reason = "length" if cut else "" if runs else "tool_calls" if calls else "stop"
        self.messages.append(message)
        return [*([Step(rest)] if rest else []), Step(message=message, finish_reason=self.finish_reason)]

    def run_tools(self) -> Iterator[Step]:
        """Run the calls of the last message; yield the message of each result."""
        for call in self.messages[-1]["tool_calls"]:
            function = call["function"]
            result = self.tools.call(function["name"], function["arguments"])
            tool = {"role": "tool", "name": function["name"], "content": result.text}
            if "id" in call:
                tool["tool_call_id"] = call["id"]
            self.messages.append(tool)
            yield Step(message=tool, result=result)

    def request(self) -> GenerationRequest:
        """Return the request for the next reply. Raises like ChatTemplate.encode."""
        read = recent(self.template, self.messages, self.context // 2, sys.maxsize) if self.forgets else self.messages
        prompt = tuple(self.template.encode(read, reply=True).ids.tolist())
        return GenerationRequest(prompt, dataclasses.replace(self.params, max_tokens=self.left))

    def next_request(self) -> GenerationRequest | None:
        """Begin another reply; return None if the context or `max_tokens` has no room for it. Raises like
        ChatTemplate.encode."""
        request = self.request()
        if self.left < 1 or len(request.prompt) >= self.context:
            self.finish_reason = "length"
            return None
        self.rounds, self.reason = self.rounds + 1, ""
        self.reply = Reply(self.template.tokenizer, self.params.stop, self.reads_calls)
        return request


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


def answer(
    engine: "Engine", template: ChatTemplate, tools: Tools, messages: Sequence[Message], params: SamplingParams,
    forgets: bool = False,
) -> Iterator[Step]:  # fmt: skip
    """Yield the steps of the assistant's answer to a conversation, as they are generated. `forgets` is that of Answer.

    Raises UsageError if the conversation does not fit into the context, and like ChatTemplate.encode.
    """
    running = Answer(template, tools, messages, params, engine.context, forgets=forgets)
    request: GenerationRequest | None = running.request()
    while request is not None:
        for event in engine.generate([request]):
            yield running.read(event)
        ended = running.finish()
        yield from ended
        if ended[-1].finish_reason:
            return
        yield from running.run_tools()
        request = running.next_request()
    yield NO_ROOM


def answer_together(engine: "Engine", answers: Sequence[Answer]) -> Iterator[tuple[int, GenerationRequest, Completion]]:
    """Generate the answers, all replies of a round at once; yield (number of the answer, request, completion) of each
    reply. Raises like `answer`."""
    requests = {number: one.request() for number, one in enumerate(answers)}
    while requests:
        for (number, request), done in zip([*requests.items()], engine.complete([*requests.values()]), strict=True):
            yield number, request, done
            one, following = answers[number], None
            one.read(done)
            one.finish()
            if not one.finish_reason:
                for _ in one.run_tools():
                    pass
                following = one.next_request()
            requests.pop(number)
            if following is not None:
                requests[number] = following
