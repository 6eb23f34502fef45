"""Conversations that are longer than the context."""

import pytest

from lm.chat.assistant import recent
from lm.chat.messages import check_messages
from lm.chat.template import ChatTemplate
from lm.chat.templates import TEMPLATES, with_template
from tests.lm.chat.test_template import PLAIN, TALK

GREETING = check_messages([{"role": "assistant", "content": "Ask me!"}])
LAST = check_messages([{"role": "user", "content": "And 6 times 8?"}])


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [True, False])
def test_the_oldest_questions_are_left_out_with_their_answers(name, system):
    template = ChatTemplate(with_template(PLAIN, name))
    size = lambda messages: len(template.encode(messages, reply=True).ids)
    begin, rest = (TALK[:1], TALK[1:]) if system else ([], TALK[1:])
    possible = [[*begin, *rest, *LAST], [*begin, *rest[4:], *LAST], [*begin, *LAST]]
    assert size(possible[0]) > size(possible[1]) > size(possible[2])
    for most in range(size(possible[0]) + 2):
        wanted = next((one for one in possible if size(one) <= most), possible[-1])
        assert recent(template, possible[0], most, 10**6) == wanted


def test_a_greeting_can_be_left_out_and_long_conversations_are_encoded_few_times(monkeypatch):
    template = ChatTemplate(with_template(PLAIN, "gristmill"))
    assert recent(template, [*GREETING, *LAST], 10**6, 10**6) == [*GREETING, *LAST]
    assert recent(template, [*GREETING, *LAST], 10**6, 20) == LAST
    sizes, encode = [], ChatTemplate.encode
    monkeypatch.setattr(
        ChatTemplate, "encode", lambda self, *given, **more: sizes.append(1) or encode(self, *given, **more)
    )
    kept = recent(template, [*TALK[1:] * 500, *LAST], 200, 1000)
    assert kept[-1:] == LAST and 1 < len(kept) < 20 and len(sizes) <= 12
