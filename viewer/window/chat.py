"""The page "Chat": the tokens of a conversation, and recorded conversations of the run folder."""

import itertools
from collections.abc import Iterator
from typing import Any

from data_prep.conversations import read_conversations
from lm.chat.messages import Message, check_messages
from lm.chat.template import ChatTemplate, TemplateError, strings_in
from lm.serving.fields import Fields, wrong
from lm.serving.inspections import Inspection
from viewer.training_data import visible
from viewer.window.model_views import MOST_CHARACTERS
from viewer.window.window_run import WindowRun


def inspections(run: WindowRun) -> list[Inspection]:
    return [
        Inspection("chat", (), lambda fields: {"conversations": recorded(run)}, "recorded conversations of the run"),
        Inspection(
            "chat_tokens", ("messages",), lambda fields: tokens(run, fields),
            "the tokens of a conversation, and which of them the model is trained to write",
        ),
    ]  # fmt: skip


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    if recorded(run):
        yield "chat", {}


def tokens(run: WindowRun, fields: Fields) -> dict[str, Any]:
    """Each token of the field "messages": id, text, whether it is special, and whether the model is trained to write
    it. Raises UsageError for messages that the chat template refuses."""
    template, messages = ChatTemplate(run.tokenizer), check_messages(fields.get("messages"))
    if (size := sum(map(len, strings_in(messages)))) > MOST_CHARACTERS:
        raise wrong("messages", f"{size:,} characters long", f"{MOST_CHARACTERS:,} at most")
    try:
        found = template.encode(messages, reply=messages[-1]["role"] != "assistant")
    except TemplateError:  # it may change earlier messages, which only matters for the mask: show what comes before
        found = template.encode(messages[:-1], reply=True)
    special = run.tokenizer.special_names
    text = lambda id: special.get(id) or visible(run.tokenizer.token_bytes(id))
    pairs = zip(found.ids.tolist(), found.trained.tolist(), strict=True)
    return {"tokens": [{"id": i, "text": text(i), "special": i in special, "trained": on} for i, on in pairs]}


def recorded(run: WindowRun) -> list[list[Message]]:
    """Conversations that launch.report recorded. The messages of tools have the `sources` of POST /v1/chat/completions.
    Invalid rows and sources are left out."""
    path = run.paths.chat_samples
    found = [one.messages for one in read_conversations(path, lambda *row: None)] if path.is_file() else []
    for message in itertools.chain(*found):
        given = message.pop("sources", None)
        message["sources"] = [one for one in given if is_source(one)] if isinstance(given, list) else []
    return found


def is_source(given: object) -> bool:
    """Whether a JSON value is a Source of lm/chat/tools.py."""
    kinds = {"url": str, "split": str, "document": int, "passage": str}
    return isinstance(given, dict) and all(type(given.get(name)) is kind for name, kind in kinds.items())
