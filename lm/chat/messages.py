"""Messages of a conversation, in the form of OpenAI's API: a list of {"role": ..., "content": ...}.

A reply of the assistant can call tools, whose results follow it:

    {"role": "user", "content": "What is 6 times 7?"}
    {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "6 * 7"}}}]}
    {"role": "tool", "content": "42"}
    {"role": "assistant", "content": "6 times 7 is 42."}
"""

import json
from typing import Any

from lm.errors import UsageError, shown

ROLES = ("system", "user", "assistant", "tool")
MOST_MESSAGES = 10_000
"""Maximum messages of a conversation."""
MOST_DEPTH = 32
"""Maximum nesting of the arguments of a call, and of each message and tool."""

type Message = dict[str, Any]


class MessageError(UsageError):
    """A message is malformed. `reason` is a stable name of the rule that it breaks."""

    def __init__(self, reason: str, text: str):
        super().__init__(text)
        self.reason = reason


def check_messages(given: object, for_training: bool = False) -> list[Message]:
    """Return the messages in one form: `content` is a string, and the arguments of calls are objects.

    Accepts null content, content as a list of text parts, and arguments as JSON text, as OpenAI's API does. Other
    fields of a message are kept for its template. With `for_training`, the conversation must have a reply to train on.
    Raises MessageError, whose text names the message by its position.
    """
    if not isinstance(given, list) or not given:
        raise MessageError("no_messages", f"messages is {shown(given)}; it must be a list with at least one message.")
    if len(given) > MOST_MESSAGES:
        raise MessageError("too_many_messages", f"There are {len(given):,} messages; the limit is {MOST_MESSAGES:,}.")
    messages: list[Message] = []
    for number, one in enumerate(given):
        at = f"messages[{number}]"
        if not isinstance(one, dict) or not all(isinstance(key, str) for key in one):
            raise MessageError("not_an_object", f"{at} is {shown(one)}; it must be an object.")
        role, content = one.get("role"), one.get("content")
        if role not in ROLES:
            raise MessageError("unknown_role", f"{at}.role is {shown(role)}; it must be one of {', '.join(ROLES)}.")
        if isinstance(content, list):
            texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
            if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
                raise MessageError(
                    "content_not_text", f"{at}.content is {shown(content)}; only parts of the type text are supported."
                )
            content = "".join(map(str, texts))
        calls = one.get("tool_calls") or []
        if calls and role != "assistant":
            raise MessageError("call_not_by_assistant", f"{at} has tool_calls, but its role is {role}.")
        if content is None and (calls or one.get("reasoning_content")):
            content = ""
        if not isinstance(content, str):
            raise MessageError("content_not_text", f"{at}.content is {shown(content)}; it must be a string.")
        if role == "system" and number:
            raise MessageError("system_not_first", f"{at}.role is system; only the first message can be.")
        if role == "tool" and not (messages and (messages[-1].get("tool_calls") or messages[-1]["role"] == "tool")):
            raise MessageError("tool_without_call", f"{at}.role is tool, but the message before it calls no tool.")
        message = {key: value for key, value in one.items() if value is not None} | {"content": content}
        if calls:
            message["tool_calls"] = checked_calls(calls, at)
        else:
            message.pop("tool_calls", None)
        if too_deep(one, MOST_DEPTH + 4):  # of the arguments of a call
            raise MessageError("nested_too_deeply", f"{at} is nested more than {MOST_DEPTH} times.")
        messages.append(message)
    if for_training and not any(one["role"] == "assistant" for one in messages):
        raise MessageError("no_reply", "No message has the role assistant, so there is nothing to train on.")
    return messages


def check_tools(given: object) -> list[Message]:
    """Return the JSON schemas of tools. Raises MessageError unless they are objects that a template can render."""
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given) or too_deep(given, MOST_DEPTH):
        raise MessageError(
            "malformed_tools",
            f"tools is {shown(given)}; it must be a list of objects, nested at most {MOST_DEPTH} times.",
        )
    return given


def checked_calls(calls: object, at: str) -> list[Message]:
    if not isinstance(calls, list):
        raise MessageError("calls_not_a_list", f"{at}.tool_calls is {shown(calls)}; it must be a list.")
    found = []
    for number, call in enumerate(calls):
        where = f"{at}.tool_calls[{number}]"
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            raise MessageError(
                "malformed_call",
                f'{where} is {shown(call)}; it must be {{"function": {{"name": ..., "arguments": ...}}}}.',
            )
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                raise MessageError(
                    "arguments_not_json", f"{where}.function.arguments is {shown(arguments)}, which is not JSON."
                ) from None
        if not isinstance(arguments, dict) or too_deep(arguments, MOST_DEPTH):
            raise MessageError(
                "arguments_not_an_object",
                f"{where}.function.arguments is {shown(arguments)}; it must be an object, nested at most {MOST_DEPTH} "
                "times.",
            )
        found.append({**call, "type": "function", "function": {**function, "arguments": arguments}})
    return found


def too_deep(value: object, depth: int) -> bool:
    """Whether `value` nests lists and objects more than `depth` times."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(inner) and (depth == 0 or any(too_deep(one, depth - 1) for one in inner))
