"""Messages are checked before a template sees them; each rejection has its reason."""

import json

import pytest

from lm.chat.messages import MessageError, check_messages

USER = {"role": "user", "content": "What is 6 times 7?"}
CALL = {"function": {"name": "calculator", "arguments": '{"expression": "6 * 7"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "42"}
REPLY = {"role": "assistant", "content": "42."}


def deep(levels: int) -> dict:
    value: dict = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no_messages"),
        ({"role": "user"}, "no_messages"),
        ([USER] * 10_001, "too_many_messages"),
        (["Hi"], "not_an_object"),
        ([{"role": "bot", "content": "Hi"}], "unknown_role"),
        ([{"content": "Hi"}], "unknown_role"),
        ([{"role": "user", "content": None}], "content_not_text"),
        ([{"role": "user", "content": 3}], "content_not_text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "content_not_text"),
        ([USER, {"role": "system", "content": "Be nice."}], "system_not_first"),
        ([USER, RESULT], "tool_without_call"),
        ([{**USER, "tool_calls": [CALL]}], "call_not_by_assistant"),
        ([USER, {**CALLING, "tool_calls": "search"}], "calls_not_a_list"),
        ([USER, {**CALLING, "tool_calls": [{"name": "search"}]}], "malformed_call"),
        ([USER, {**CALLING, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}], "arguments_not_json"),
        ([USER, {**CALLING, "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}], "arguments_not_an_object"),
        ([USER, {**CALLING, "tool_calls": [{"function": {"name": "f", "arguments": deep(40)}}]}],
         "arguments_not_an_object"),
        ([{**USER, "x": deep(40)}], "nested_too_deeply"),
    ],
)  # fmt: skip
def test_malformed_messages_are_rejected_by_reason(messages, reason):
    with pytest.raises(MessageError) as caught:
        check_messages(messages)
    assert caught.value.reason == reason


def test_a_conversation_to_train_on_needs_a_reply():
    assert check_messages([USER]) == [USER]
    with pytest.raises(MessageError) as caught:
        check_messages([USER], for_training=True)
    assert caught.value.reason == "no_reply"


def test_messages_get_one_form():
    parts = {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "6 times 7?"}]}
    found = check_messages([parts, CALLING, RESULT, {**REPLY, "name": None}], for_training=True)
    assert [one["content"] for one in found] == [USER["content"], "", "42", "42."]
    assert found[1]["tool_calls"] == [
        {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "6 * 7"}}}
    ]
    assert "name" not in found[3] and check_messages(json.loads(json.dumps(found))) == found
