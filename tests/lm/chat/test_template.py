"""Rendering, loss masks, and special tokens that only the template can write."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.chat.messages import check_messages
from lm.chat.sandbox import RenderingStopped, TemplateLimitError
from lm.chat.template import ChatTemplate, TemplateError
from lm.chat.templates import TEMPLATES, with_template
from lm.config.tokenizer import SPECIAL_TOKENS
from lm.errors import UsageError
from lm.tokenizer.characters import CharacterTokenizer
from lm.tokenizer.encoding import BytePairTokenizer, numbered
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.growth import superlinear

BYTES = tuple(bytes([byte]) for byte in range(256))


def bytes_with(names: tuple[str, ...]) -> BytePairTokenizer:
    """A vocabulary of bytes, a few merges that cross the ends of messages, and special tokens."""
    tokens = (*BYTES, b"\n\n", b"Hi", b"it")
    return BytePairTokenizer(SPLIT_PATTERNS["cl100k"], tokens, special_tokens=numbered(tokens, names))


PLAIN = bytes_with(("<|endoftext|>",))
TALK = check_messages([
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is 6 times 7?"},
    {"role": "assistant", "content": "",
     "tool_calls": [{"function": {"name": "calculator", "arguments": {"expression": "6 * 7"}}}]},
    {"role": "tool", "content": "42"},
    {"role": "assistant", "content": "It is 42."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Welcome!"},
])  # fmt: skip


def trained_text(template: ChatTemplate, messages: list) -> str:
    """What the model is trained to write, with a | between separate parts."""
    ids, trained = template.encode(messages)
    parts = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(trained)) + 1)
    return "|".join(template.tokenizer.decode(ids[part].tolist()) for part in parts if len(part) and trained[part[0]])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("gristmill", '<|call|>calculator {"expression": "6 * 7"}<|end|>| It is 42.<|end|>| Welcome!<|end|>'),
        ("chatml", '<tool_call>{"name": "calculator", "arguments": {"expression": "6 * 7"}}</tool_call><|im_end|>|'
                   "It is 42.<|im_end|>|Welcome!<|im_end|>"),
        ("llama3", '{"name": "calculator", "parameters": {"expression": "6 * 7"}}<|eot_id|>|It is 42.<|eot_id|>|'
                   "Welcome!<|eot_id|>"),
    ],
)  # fmt: skip
def test_only_what_the_assistant_writes_is_trained(name, wanted):
    template = ChatTemplate(with_template(PLAIN, name))
    assert trained_text(template, TALK) == wanted


@pytest.mark.parametrize("name", TEMPLATES)
def test_tokens_are_those_of_the_text_and_replies_begin_where_training_does(name):
    template = ChatTemplate(with_template(PLAIN, name))
    ids, trained = template.encode(TALK)
    assert template.tokenizer.decode(ids.tolist()) == template.text(TALK)
    for number, message in enumerate(TALK):
        if message["role"] == "assistant":
            prompt = template.encode(TALK[:number], reply=True).ids
            assert ids[: len(prompt)].tolist() == prompt.tolist() and trained[len(prompt)]
    assert template.tokenizer.stop_ids[0] in template.tokenizer.eos_ids


def without_generation(jinja: str) -> str:
    return jinja.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")


@pytest.mark.parametrize("name", TEMPLATES)
def test_replies_are_found_in_templates_without_generation(name):
    tokenizer = with_template(PLAIN, name)
    marked = ChatTemplate(tokenizer)
    plain = ChatTemplate(replace(tokenizer, chat_template=without_generation(tokenizer.chat_template)))
    assert plain.text(TALK) == marked.text(TALK)
    assert trained_text(plain, TALK) == trained_text(marked, TALK)


def test_a_template_that_changes_earlier_messages_cannot_be_trained_on():
    jinja = "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}"
    template = ChatTemplate(replace(PLAIN, chat_template=jinja))
    with pytest.raises(TemplateError, match=r"messages\[2\].*Put {% generation %}"):
        template.encode(TALK)


INJECTIONS = st.lists(
    st.sampled_from([*SPECIAL_TOKENS, *TEMPLATES["llama3"].tokens, *TEMPLATES["chatml"].tokens,
                     "<", "|", ">", "<|", "|>", "<|end", "end|>", "{{ 7 * 6 }}", "{% generation %}", "\ue000", "\ue001",
                     "a", " ", "\n", "user", "assistant"]),
    max_size=8,
).map("".join)  # fmt: skip


@given(name=st.sampled_from(list(TEMPLATES)), texts=st.lists(INJECTIONS, min_size=4, max_size=4))
def test_messages_cannot_write_special_tokens(name, texts):
    template = ChatTemplate(with_template(PLAIN, name))
    specials = set(template.tokenizer.special_tokens.values())
    talk = lambda texts: check_messages([
        {"role": "system", "content": f"S{texts[0]}"},
        {"role": "user", "content": texts[1]},
        {"role": "assistant", "content": texts[2],
         "tool_calls": [{"function": {"name": "f", "arguments": {texts[3]: texts[0]}}}]},
        {"role": "tool", "content": texts[3]},
    ])  # fmt: skip
    ids, trained = template.encode(talk(texts))
    wanted, _ = template.encode(talk(["x"] * 4))
    assert [id for id in ids.tolist() if id in specials] == [id for id in wanted.tolist() if id in specials]
    assert template.tokenizer.decode(ids.tolist()) == template.text(talk(texts))
    assert trained.any()


def test_a_token_that_crosses_the_end_of_a_part_is_trained():
    jinja = "{% for m in messages %}i{% generation %}t{% endgeneration %}x{% endfor %}"
    template = ChatTemplate(replace(PLAIN, chat_template=jinja))
    ids, trained = template.encode(TALK[:1])
    assert [(PLAIN.token_bytes(id), on) for id, on in zip(ids.tolist(), trained.tolist(), strict=True)] == [
        (b"it", True), (b"x", False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        ("", "has no chat template"),
        ("{% for %}", "not valid Jinja"),
        ("{{ raise_exception('no system') }}", "refuses the conversation: no system"),
        ("{{ messages.nothing.at_all }}", "cannot render"),
    ],
)
def test_invalid_templates_are_rejected(jinja, message):
    with pytest.raises(TemplateError, match=message):
        ChatTemplate(replace(PLAIN, chat_template=jinja)).encode(TALK)


def test_steps_grow_with_the_conversation():
    """Each message is used a few times, and there are many."""
    template = ChatTemplate(with_template(PLAIN, "chatml"))
    talk = [{"role": ("user", "assistant")[number % 2], "content": "x" * 1000} for number in range(5000)]
    assert len(template.text(talk)) > 5_000_000
    assert len(template.text([{"role": "user", "content": "x" * 5_000_000}], TALK[2]["tool_calls"])) > 5_000_000


def test_the_steps_to_encode_are_linear_in_the_messages():
    template = ChatTemplate(with_template(PLAIN, "gristmill"))
    encode = lambda talk: template.encode(talk, reply=True)
    assert not superlinear(encode, lambda size: [{"role": "user", "content": "word " * 4}] * size, 200)


def test_a_rendering_ends_when_nobody_waits_for_it():
    """Counts how often it asks."""
    asked = itertools.count()
    jinja = "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}"
    template = ChatTemplate(replace(PLAIN, chat_template=jinja))
    with pytest.raises(RenderingStopped):
        template.until(lambda: next(asked) == 1000).text(TALK)
    assert next(asked) == 1001
    with pytest.raises(TemplateLimitError):
        template.text(TALK)


def test_special_tokens_are_appended_only_if_missing():
    reserved = bytes_with(SPECIAL_TOKENS)
    assert with_template(reserved, "").special_tokens == reserved.special_tokens
    assert with_template(reserved, "").fingerprint == reserved.fingerprint
    appended = with_template(PLAIN, "")
    assert appended.vocab_size == PLAIN.vocab_size + len(SPECIAL_TOKENS) - 1
    assert set(appended.special_tokens.values()) == set(range(PLAIN.vocab_size - 1, appended.vocab_size))
    llama = bytes_with(("<|endoftext|>", *TEMPLATES["llama3"].tokens))
    assert with_template(llama, "").chat_template == TEMPLATES["llama3"].jinja
    own = replace(PLAIN, chat_template="{{ messages[0].content }}")
    assert with_template(own, "") is own


def test_a_vocabulary_that_cannot_grow_is_refused():
    with pytest.raises(UsageError, match=r"kind characters, lacks the special tokens .*<\|end\|>"):
        with_template(CharacterTokenizer("\nabc"), "")
