"""Tasks of lm-eval as conversations with an assistant (lm/evaluation/harness.py)."""

import bisect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lm.chat.assistant import recent
from lm.chat.messages import Message
from lm.chat.reply import Reply
from lm.chat.template import ChatTemplate
from lm.errors import UsageError
from lm.evaluation.harness import HarnessLM, stops_of
from lm.evaluation.log_likelihood import Request
from lm.inference.requests import Completion


class Conversation(str):
    """Messages as JSON. Text of a data set is never of this type, so it cannot pass for a conversation."""


class ChatLM(HarnessLM):
    """HarnessLM whose contexts are conversations. Raises TemplateError if the tokenizer has no valid chat template,
    UsageError for `add_bos_token`."""

    chat = True

    def __init__(self, *model: Any, add_bos_token: bool | None = None, **options: Any):
        super().__init__(*model, **options)
        self.template = ChatTemplate(self.tokenizer)
        if add_bos_token is not None:
            raise UsageError(
                "--add-bos-token has no effect with --apply-chat-template: the chat template writes BOS. Remove one."
            )

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the chat template, for lm-eval's records."""
        return self.tokenizer.chat_template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> Conversation:
        """Return the messages; `encode_chat` renders them. The last message is by the assistant if the task begins the
        reply (`add_generation_prompt` is False)."""
        return Conversation(json.dumps(chat_history))

    def encode_reply(self, messages: Sequence[Message], text: str) -> tuple[list[int], list[int]]:
        """Return the ids of the messages, up to where the reply begins, and of `text` as the reply, without its end.
        Raises UsageError if the template writes replies in history in another form."""
        prompt = self.template.encode(messages, reply=True).ids.tolist()
        if not text:
            return prompt, []
        whole = self.template.encode([*messages, {"role": "assistant", "content": text}]).ids.tolist()
        end = next((at for at in range(len(prompt), len(whole)) if whole[at] in self.tokenizer.eos_ids), None)
        if whole[: len(prompt)] != prompt or end is None:
            raise UsageError(
                "The chat template cannot begin a reply: it writes other text before a finished reply, or no end token "
                "after it. Choose a task that generates whole replies, or omit --apply-chat-template."
            )
        return prompt, whole[len(prompt) : end]

    def encode_chat(self, context: str, room: int, continuation: str = "") -> Request:
        """Encode a conversation, and `continuation` as text of the reply. If both exceed `room` tokens, the oldest
        questions are dropped with their answers, then the beginning of the last question is cut. Raises UsageError if
        nothing of it is left, or if the context is not of `apply_chat_template`."""
        if not isinstance(context, Conversation):
            raise UsageError(
                "A task writes its own prompts, so it has no chat version. Choose another, or omit "
                "--apply-chat-template."
            )
        messages = json.loads(context)
        begun = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""
        prompt, reply = self.encode_reply(messages, begun + continuation)
        cut = len(reply)
        if continuation:  # the rules of encode_pair
            cut = min(len(self.encode_reply(messages, begun.rstrip())[1]), len(reply) - 1) if begun else 0
        most = room - len(reply)
        if len(prompt) > most:
            *before, last = recent(self.template, messages, most, len(context))
            text = last["content"]
            shortened = lambda start: self.encode_reply([*before, {**last, "content": text[start:]}], "")[0]
            start = bisect.bisect_left(range(len(text)), True, key=lambda start: len(shortened(start)) <= most)
            if start == len(text):
                raise UsageError(
                    f"Without its last question, a conversation has more than {room} tokens already; the model's "
                    f"context is {self.config.context_length}. Choose another task, or omit --apply-chat-template."
                )
            prompt = shortened(start)
        return Request(prompt + reply[:cut], reply[cut:])

    def encode_context(self, context: str, most: int) -> list[int]:
        """Return the ids of a conversation, shortened as by `encode_chat`."""
        return [*self.encode_chat(context, most).context]

    def pair_of(self, context: str, continuation: str) -> Request:
        """Encode a context and its continuation. An empty context is that of a text."""
        if not context:
            return super().pair_of(context, continuation)
        return self.encode_chat(context, self.config.context_length, continuation)

    def text_of(self, context: str, arguments: Mapping[str, Any], completion: Completion) -> str:
        """Return the generated text; without the template's own text before it if it is a whole reply."""
        if json.loads(context)[-1]["role"] == "assistant":
            return completion.text
        reply = Reply(self.tokenizer, stops_of(arguments), calls=False)
        for token in completion.tokens:
            reply.push(token)
        return reply.finish()[1]["content"]
