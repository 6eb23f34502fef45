"""Bodies of /v1/completions: those of OpenAI's clients become requests, others are rejected by field."""

import json
from dataclasses import replace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from lm.inference.requests import GenerationEvent, TokenLogprob
from lm.serving.answers import LISTS, ChoiceWriter, joined, to_json, token_text
from lm.serving.fields import ApiError
from lm.serving.protocol import KNOWN, CompletionCall, Limits, parse_completion
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from tests.lm.serving.in_process import TOKENIZER
from tests.lm.tokenizer.test_hugging_face_library import lacking_bytes

LIMITS = Limits(context=32, max_choices=8)
BOS = TOKENIZER.bos_id


def parse(**fields: Any) -> CompletionCall:
    return parse_completion(json.dumps(fields).encode(), "tiny", TOKENIZER, LIMITS)


def refusal(body: bytes | None = None, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as refused:
        parse_completion(json.dumps(fields).encode() if body is None else body, "tiny", TOKENIZER, LIMITS)
    return refused.value


def test_the_four_kinds_of_prompts_begin_with_one_bos():
    text = "The miller"
    ids = TOKENIZER.encode(text)
    for prompt, count in ((text, 1), ([text, text], 2), (ids, 1), ([ids, [BOS, *ids]], 2), ([BOS, *ids], 1)):
        call = parse(prompt=prompt, model="tiny")
        assert [one.tokens for one in call.prompts] == [(BOS, *ids)] * count
    assert parse(prompt=f"<|endoftext|>{text}").prompts[0].tokens == (BOS, *ids)
    assert BOS not in parse(prompt="a <|endoftext|>", add_special_tokens=False).prompts[0].tokens
    given, own = parse(prompt=[ids, [BOS, *ids]]).prompts
    assert given.shown == tuple(ids) and own.shown == (BOS, *ids)
    assert parse(prompt=text, add_special_tokens=False).prompts[0].tokens == tuple(ids)
    assert parse(prompt="").prompts[0].tokens == parse().prompts[0].tokens == (BOS,)


def test_imported_tokenizers_add_their_own_bos_and_missing_bytes_are_rejected():
    tokenizer = LibraryTokenizer.from_json(lacking_bytes(), "<|endoftext|>")
    bos, ids = tokenizer.bos_id, tuple(tokenizer.encode("a mill"))
    for add_bos in (True, False):
        of = lambda body, add_bos=add_bos: parse_completion(
            json.dumps(body).encode(), "tiny", replace(tokenizer, add_bos=add_bos), LIMITS
        )
        assert of({"prompt": "a mill"}).prompts[0].tokens == (bos,) * add_bos + ids
        assert of({"prompt": ""}).prompts[0].tokens == (bos,)
        assert of({"prompt": "<|endoftext|>a mill"}).prompts[0].tokens == (bos, *ids)
        with pytest.raises(ApiError, match="needs the byte 0x1D") as refused:
            of({"prompt": "a \x1d"})
        assert refused.value.status == 400


def test_defaults_are_those_of_openai():
    call = parse(prompt="The", temperature=None, stop=None)
    assert (call.params.max_tokens, call.params.temperature, call.params.top_p, call.n) == (16, 1.0, 1.0, 1)
    assert not call.echo and not call.stream and call.params.logprobs is None and not call.params.prompt_logprobs
    assert parse(prompt="The").params.seed != parse(prompt="The").params.seed


def test_choices_of_a_prompt_have_different_seeds_and_the_first_uses_the_seed_of_the_call():
    alone, beside = parse(prompt="The", seed=7), parse(prompt=["A", "The"], seed=7, n=3)
    seeds = [request.params.seed for request in beside.requests]
    assert alone.requests[0].params.seed == seeds[0] == seeds[3] == 7
    assert seeds[:3] == seeds[3:] and len(set(seeds)) == 3
    assert [request.prompt for request in beside.requests] == [one.tokens for one in beside.prompts for _ in range(3)]


def test_all_fields_reach_the_sampler():
    call = parse(
        prompt="The", max_tokens=3, temperature=0.5, top_k=4, top_p=0.9, min_p=0.1, repetition_penalty=1.2, stop="x",
        seed=2, logprobs=5, echo=True, stream=True, stream_options={"include_usage": True}, best_of=1, user="me",
        presence_penalty=0, frequency_penalty=0.0, logit_bias={},
    )  # fmt: skip
    params = call.params
    assert (params.max_tokens, params.temperature, params.top_k, params.top_p, params.min_p) == (3, 0.5, 4, 0.9, 0.1)
    assert (params.repetition_penalty, params.stop, params.seed, params.logprobs) == (1.2, ("x",), 2, 5)
    assert params.prompt_logprobs and call.include_usage and call.stream


LONG = [1] * 32
REFUSED: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"max_tokens": 33}, "max_tokens", ["33", "32"]),
    ({"max_tokens": 1.5}, "max_tokens", ["1.5", "integer"]),
    ({"max_tokens": True}, "max_tokens", ["True", "integer"]),
    ({"max_tokens": 10**40}, "max_tokens", ["1000", "32"]),
    ({"temperature": -0.1}, "temperature", ["-0.1"]),
    ({"temperature": "hot"}, "temperature", ["hot", "number"]),
    ({"top_p": 0}, "top_p", ["0", "above 0"]),
    ({"top_k": -2}, "top_k", ["-2"]),
    ({"min_p": 1.1}, "min_p", ["1.1", "1"]),
    ({"repetition_penalty": 0}, "repetition_penalty", ["0"]),
    ({"n": 9}, "n", ["9", "8"]),
    ({"n": 3, "prompt": ["a", "b", "c"]}, "n", ["9", "8"]),
    ({"prompt": ["a"] * 9}, "prompt", ["9", "8"]),
    ({"best_of": 2}, "best_of", ["2", "n (1)"]),
    ({"logprobs": 21}, "logprobs", ["21", "20"]),
    ({"echo": "yes"}, "echo", ["yes"]),
    ({"stop": ["a"] * 17}, "stop", ["17", "16"]),
    ({"stop": [""]}, "stop", ["''", "1 to 256"]),
    ({"stop": ["a", 3]}, "stop", ["3"]),
    ({"seed": -1}, "seed", ["-1", "4,294,967,295"]),
    ({"presence_penalty": 0.5}, "presence_penalty", ["0.5", "repetition_penalty"]),
    ({"logit_bias": {"5": 1}}, "logit_bias", ["empty"]),
    ({"suffix": "end"}, "suffix", ["end", "fill in"]),
    ({"stream_options": {"include_usage": True}}, "stream_options", ["stream"]),
    ({"prompt": []}, "prompt", ["[]"]),
    ({"prompt": [[]], "add_special_tokens": False}, "prompt", ["empty"]),
    ({"prompt": [1, "a"]}, "prompt", ["token ids"]),
    ({"prompt": [320]}, "prompt", ["320", "319"]),
    ({"prompt": {"text": "a"}}, "prompt", ["string"]),
    ({"prompt": LONG}, "prompt", ["33 tokens", "32"]),
    ({"messages": []}, "messages", ["messages", "prompt"]),
]


@pytest.mark.parametrize(("fields", "param", "told"), REFUSED, ids=lambda value: str(value)[:50])
def test_invalid_fields_are_rejected_with_name_value_and_limit(fields, param, told):
    error = refusal(**{"prompt": "The", "model": "tiny"} | fields)
    assert (error.status, error.param) == (400, param)
    assert all(word in error.message for word in told), error.message
    assert set(error.as_json()["error"]) == {"message", "type", "param", "code"}  # ty: ignore[invalid-argument-type]


def test_another_model_is_not_found():
    error = refusal(model="gpt-4", prompt="The")
    assert (error.status, error.param, error.code) == (404, "model", "model_not_found")
    assert "gpt-4" in error.message and "tiny" in error.message


def test_prompts_that_cannot_fit_are_rejected_by_their_size_in_bytes():
    limits = LIMITS.for_tokenizer(TOKENIZER)
    longest = max((TOKENIZER.token_bytes(id) for id in range(TOKENIZER.vocab_size - 1)), key=len).decode()
    read = lambda text: parse_completion(json.dumps({"prompt": text}).encode(), "tiny", TOKENIZER, limits)
    assert limits.max_prompt_bytes >= len(longest.encode()) * limits.context
    for text in (longest * 10_000, "é" * limits.max_prompt_bytes, "\ud800" * 10**6):
        with pytest.raises(ApiError, match=f"{limits.max_prompt_bytes:,} bytes") as refused:
            read(text)
        assert refused.value.code == "context_length_exceeded"
    assert read("The miller").prompts == parse(prompt="The miller").prompts


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"3", b'{"prompt": NaN}', b"\xff", b"[" * 100_000, b'{"n":' + b"9" * 5000 + b"}"],
    ids=range(8),
)  # fmt: skip
def test_bodies_that_are_not_json_objects_are_rejected(body):
    assert refusal(body).status == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([2**31, 2**64, -(2**63)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@hypothesis.given(st.dictionaries(st.sampled_from(KNOWN), JSON, max_size=6))
@hypothesis.settings(max_examples=100)
def test_any_body_gives_requests_or_an_error(body):
    try:
        call = parse_completion(json.dumps(body).encode(), "tiny", TOKENIZER, LIMITS)
    except ApiError as error:
        assert error.status in (400, 404) and json.loads(to_json(error.as_json()))
    else:
        assert 0 < len(call.requests) <= LIMITS.max_choices
        for request in call.requests:
            assert 0 < len(request.prompt) <= LIMITS.context and request.params.max_tokens <= LIMITS.context
            assert request.params.top_k < TOKENIZER.vocab_size


def scored(tokens: list[int]) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(token, -1.5, ((token, -1.5), (65, -2.5))) for token in tokens)


def test_joined_pieces_equal_the_whole_and_offsets_count_characters():
    """For any pieces, also if a character spans tokens and events."""
    call = parse(prompt="Thé", echo=True, logprobs=1)
    prompt = call.prompts[0]
    shown = list(prompt.shown)
    new = TOKENIZER.encode("né €5")
    heads = (TokenLogprob(BOS, None), *scored(shown))
    text = "né €5"
    whole = ChoiceWriter(0, prompt, call, TOKENIZER).piece(
        GenerationEvent(1, tuple(new), text, scored(new), heads, "length")
    )
    writer = ChoiceWriter(0, prompt, call, TOKENIZER)
    pieces = [writer.piece(GenerationEvent(1, (), "", (), heads))]
    pieces += [
        writer.piece(GenerationEvent(1, (token,), text if number == len(new) - 1 else "", scored([token]), (), end))
        for number, token in enumerate(new)
        for end in ["length" if number == len(new) - 1 else None]
    ]
    assert joined(pieces) == whole
    assert whole["text"] == "Thé" + text
    logprobs = whole["logprobs"]
    assert isinstance(logprobs, dict)
    assert {len(logprobs[name]) for name in LISTS} == {len(shown) + len(new)}  # the added BOS is not shown
    places = [len((b"".join(TOKENIZER.token_bytes(id) for id in [*shown, *new][:i])).decode("utf-8", "ignore"))
              for i in range(len(shown) + len(new))]  # fmt: skip
    assert logprobs["text_offset"] == places


def test_a_bos_from_the_client_is_shown_and_has_no_logprob():
    call = parse(prompt=[BOS, 65], echo=True, logprobs=0, max_tokens=0)
    heads = (TokenLogprob(BOS, None), TokenLogprob(65, -0.5))
    piece = ChoiceWriter(0, call.prompts[0], call, TOKENIZER).piece(GenerationEvent(1, (), "", (), heads, "length"))
    logprobs = piece["logprobs"]
    assert isinstance(logprobs, dict)
    assert logprobs["token_logprobs"] == [None, -0.5] and logprobs["top_logprobs"][0] is None
    assert logprobs["top_logprobs"][1] == {token_text(TOKENIZER, 65): -0.5}


def test_an_incomplete_character_is_shown_as_bytes():
    assert token_text(TOKENIZER, TOKENIZER.ranks[b"\xe2"]) == "bytes:\\xe2"


def test_every_answer_is_ascii_json():
    assert json.loads(to_json({"text": "\ud800é"})) == {"text": "\ud800é"}
