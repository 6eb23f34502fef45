"""Conversations that are longer than the context."""

import sys

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
    for most in {0, *(size(one) + more for one in possible for more in (-1, 0, 1))}:
        wanted = next((one for one in possible if size(one) <= most), possible[-1])
        assert recent(template, possible[0], most, 10**6) == wanted


def test_a_greeting_can_be_left_out():
    template = ChatTemplate(with_template(PLAIN, "gristmill"))
    assert recent(template, [*GREETING, *LAST], 10**6, 10**6) == [*GREETING, *LAST]
    assert recent(template, [*GREETING, *LAST], 10**6, 20) == LAST


@pytest.mark.fast_rows
@pytest.mark.parametrize("most_characters", [100_000, sys.maxsize])
@pytest.mark.parametrize("words", [1, 200])
def test_the_cost_of_shortening_is_that_of_what_stays(monkeypatch, most_characters, words):
    """Counts the messages that are encoded: few times as many as those that stay, of any number."""
    template, encoded, encode = ChatTemplate(with_template(PLAIN, "gristmill")), [], ChatTemplate.encode
    monkeypatch.setattr(
        ChatTemplate, "encode", lambda self, some, *more, **named: (
            encoded.append(len(some)) or encode(self, some, *more, **named)
        )
    )  # fmt: skip
    pair = [{"role": "user", "content": "word " * words}, {"role": "assistant", "content": "no"}]
    short = recent(template, [*pair, *LAST], 10_000, most_characters)
    assert len(encoded) == 1 and len(short) == 3
    encoded.clear()
    kept = recent(template, [*pair * 4_900, *LAST], 10_000, most_characters)
    assert kept[-1:] == LAST and len(kept) > 10 and len(encode(template, kept, reply=True).ids) <= 10_000
    assert len(encode(template, [*pair, *kept], reply=True).ids) > 10_000
    assert sum(encoded) <= 12 * len(kept) and len(encoded) <= 8
