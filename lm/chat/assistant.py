"""Answer in a conversation: generate a reply, run the tools that it calls, and go on with their results."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lm.chat.messages import Message
from lm.chat.reply import Reply
from lm.chat.template import ChatTemplate
from lm.chat.tools import Result, Tools
from lm.inference.requests import GenerationRequest, SamplingParams

if TYPE_CHECKING:
    from lm.inference.engine import Engine

MOST_ROUNDS = 4
"""Maximum rounds of calls in one answer."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an answer: a piece of text, a finished message, or the result of a tool."""

    text: str = ""
    """New text to show."""
    message: Message | None = None
    """Message of the assistant or of a tool, to be added to the conversation."""
    result: Result | None = None
    """With the message of a tool: what it returned."""
    finish_reason: str = ""
    """With the last message: stop, length, or tool_calls if the answer ends with calls that nobody ran."""


def tool_steps(message: Message, tools: Tools) -> Iterator[Step]:
    """Run the calls of a message; yield a tool message for each."""
    for call in message["tool_calls"]:
        function = call["function"]
        result = tools.call(function["name"], function["arguments"])
        tool = {"role": "tool", "name": function["name"], "content": result.text}
        if "id" in call:
            tool["tool_call_id"] = call["id"]
        yield Step(message=tool, result=result)


def answer(
    engine: "Engine", template: ChatTemplate, tools: Tools, messages: Sequence[Message], params: SamplingParams
) -> Iterator[Step]:
    """Yield the steps of the assistant's answer to a conversation, as they are generated.

    Raises UsageError if the conversation does not fit into the context, and like ChatTemplate.encode.
    """
    messages = list(messages)
    for number in range(MOST_ROUNDS + 1):
        prompt = tuple(template.encode(messages, reply=True).ids.tolist())
        reply, reason = Reply(template.tokenizer, params.stop), ""
        for event in engine.generate([GenerationRequest(prompt, params)]):
            for token in event.tokens:
                if text := reply.push(token):
                    yield Step(text=text)
            reason = event.finish_reason or reason
        rest, message = reply.finish()
        if rest:
            yield Step(text=rest)
        runs = "tool_calls" in message and tools.functions and number < MOST_ROUNDS
        yield Step(message=message, finish_reason="" if runs else "tool_calls" if "tool_calls" in message else reason)
        messages.append(message)
        if not runs:
            return
        for step in tool_steps(message, tools):
            yield step
            assert step.message is not None
            messages.append(step.message)
