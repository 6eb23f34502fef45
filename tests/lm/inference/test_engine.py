"""The engine: the output of a request does not depend on the batch, and the cache changes no probability."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UsageError
from lm.inference.engine import Engine, bucket
from lm.inference.generate import sample_texts
from lm.inference.requests import GenerationRequest, QueueFull, SamplingParams
from lm.inference.weights import for_inference
from lm.tokenizer import train_bpe
from tests.corpus import texts, tiny_experiment
from tests.lm.inference.models import always_predicting, log_probabilities
from tests.lm.model_configs import LLAMA, initial_model

CONTEXT = 48
WORDS = ("The miller", "A farmer carried a sack of grain to the mill", "", "He", "of the river, and the", "x" * 20)


@functools.cache
def tokenizer():
    return train_bpe(texts(20), tiny_experiment().tokenizer)


def config_of(**changes):
    rows = tokenizer().vocab_size + 7  # more rows than the tokenizer has tokens
    return dataclasses.replace(LLAMA, vocab_size=rows, context_length=CONTEXT, layers=1, **changes)


def engine_of(config, slots=4, decode_steps=4, **options):
    return Engine(initial_model(config), config, tokenizer(), slots=slots, decode_steps=decode_steps, **options)


@pytest.fixture(scope="module")
def engine():
    return engine_of(config_of())


def request(text, **params):
    return GenerationRequest((tokenizer().bos_id, *tokenizer().encode(text)), SamplingParams(**params))


SCORED = SamplingParams(max_tokens=0, prompt_logprobs=True, logprobs=2)
MIXED = [
    request(WORDS[0], temperature=0.0, max_tokens=20, logprobs=2),
    request(WORDS[1], temperature=0.9, seed=5, max_tokens=9, logprobs=0),
    request(WORDS[2], temperature=1.3, seed=6, top_k=5, max_tokens=30),
    request(WORDS[3], temperature=0.0, max_tokens=25, repetition_penalty=1.3, logprobs=1),
    request(WORDS[4], temperature=0.7, seed=2**32 - 1, top_p=0.8, min_p=0.02, max_tokens=13, logprobs=3),
    request(WORDS[5], temperature=0.0, max_tokens=3),
    request(WORDS[1], max_tokens=0, prompt_logprobs=True, logprobs=1),
    request(WORDS[0], temperature=1.0, seed=5, max_tokens=17, logprobs=0, prompt_logprobs=True),
]


def test_a_request_has_the_same_tokens_and_bits_in_any_batch(engine):
    alone = [engine.complete([one])[0] for one in MIXED]
    together = engine.complete(MIXED)
    assert together == alone
    assert engine.complete(MIXED[::-1]) == alone[::-1]
    assert [len(one.tokens) for one in alone] == [20, 9, 30, 25, 13, 3, 0, 17]
    assert alone[0].logprobs[0].top[0] == (alone[0].tokens[0], alone[0].logprobs[0].logprob)
    assert not alone[2].logprobs and len(alone[4].logprobs[5].top) == 3


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_prepared_weights_keep_the_guarantee(engine, weights):
    config = config_of(scan_layers=True)
    laid_out = for_inference(initial_model(config), config, weights)
    other = Engine(laid_out, config, tokenizer(), slots=4, decode_steps=4)
    alone = [other.complete([one])[0] for one in MIXED]
    assert other.complete(MIXED) == alone
    if weights == "float32":
        assert [one.tokens for one in engine.complete(MIXED)] == [one.tokens for one in alone]


@pytest.mark.parametrize("penalty", [5.0, 0.2])
def test_the_repetition_penalty_counts_the_prompt_and_the_text_so_far(engine, penalty):
    """By the definition (arXiv:1909.05858), from the whole forward pass; in reused slots."""
    asked = [request(one, temperature=0.0, max_tokens=8, repetition_penalty=penalty) for one in (*WORDS[:5], "The")]
    whole = [(*one.prompt, *new.tokens) for one, new in zip(asked, engine.complete(asked), strict=True)]
    rows_BT = np.array([[*ids, *[0] * (CONTEXT - len(ids))] for ids in whole], np.int32)
    forward = jax.jit(lambda model, rows_BT: model.logits(model.read(rows_BT, jnp.ones_like(rows_BT))))
    logits_BTV = np.array(forward(initial_model(config_of()), rows_BT))[:, :, : tokenizer().vocab_size]
    for one, ids, logits_TV in zip(asked, whole, logits_BTV, strict=True):
        for place in range(len(one.prompt), len(ids)):
            logits_V, seen = logits_TV[place - 1], np.unique(ids[:place])
            logits_V[seen] = np.where(logits_V[seen] > 0, logits_V[seen] / penalty, logits_V[seen] * penalty)
            assert ids[place] == logits_V.argmax()


def test_prompts_are_scored_and_greedy_tokens_are_the_most_likely_by_the_whole_forward_pass(engine):
    (new,) = engine.complete([request(WORDS[0], temperature=0.0, max_tokens=20)])
    ids = (*request(WORDS[0]).prompt, *new.tokens)
    (scored,) = engine.complete([GenerationRequest(ids, SCORED)])
    logprobs_SV = log_probabilities(initial_model(config_of()), len(ids))(ids)
    of_tokenizer = logprobs_SV[:, : tokenizer().vocab_size]
    np.testing.assert_array_equal(of_tokenizer[-len(new.tokens) - 1 : -1].argmax(-1), new.tokens)
    first, *others = scored.prompt_logprobs
    assert (first.token, first.logprob, first.top, scored.finish_reason) == (ids[0], None, (), "length")
    assert [one.token for one in others] == list(ids[1:]) and not scored.tokens
    expected = [logprobs_SV[place, token] for place, token in enumerate(ids[1:])]
    np.testing.assert_allclose([one.logprob for one in others], expected, rtol=0, atol=1e-5)
    for place, one in enumerate(others):
        (best, second) = one.top
        assert best[0] == of_tokenizer[place].argmax() and best[1] > second[1]
        assert second[1] == pytest.approx(np.sort(of_tokenizer[place])[-2], abs=1e-5)


def test_events_stream_the_text_and_end_once(engine):
    events = list(engine.generate(MIXED))
    whole = engine.complete(MIXED)
    for id, one in zip(sorted({event.request_id for event in events}), whole, strict=True):
        own = [event for event in events if event.request_id == id]
        assert "".join(event.text for event in own) == one.text
        assert tuple(token for event in own for token in event.tokens) == one.tokens
        assert [event.finish_reason for event in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].finish_reason == one.finish_reason
        assert len(own) >= len(one.tokens) / 5
    assert whole[0].text == tokenizer().decode(whole[0].tokens)


def test_text_ends_at_a_stop_string_the_end_of_the_document_or_the_end_of_the_context(engine):
    (whole,) = engine.complete([request(WORDS[0], temperature=0.0, max_tokens=20, logprobs=0)])
    cut = whole.text[7:10]
    (stopped,) = engine.complete([request(WORDS[0], temperature=0.0, max_tokens=20, logprobs=0, stop=("\0", cut))])
    assert stopped.text == whole.text[: whole.text.index(cut)] and stopped.finish_reason == "stop"
    assert stopped.logprobs == whole.logprobs[: len(stopped.tokens)] and len(stopped.tokens) < 20
    prompt = request(WORDS[0]).prompt
    (full,) = engine.complete([request(WORDS[0], seed=1, max_tokens=10_000)])
    assert full.finish_reason == "length" and len(full.tokens) == CONTEXT - len(prompt)


def test_generation_ends_at_the_end_of_the_document():
    config = config_of()
    model = always_predicting(initial_model(config), tokenizer().bos_id)
    engine = Engine(model, config, tokenizer(), slots=4, decode_steps=4)
    (one,) = engine.complete([request(WORDS[0], temperature=0.0)])
    assert (one.text, one.tokens, one.finish_reason) == ("", (), "stop")


def test_a_cancelled_request_ends_without_effect_on_others(engine):
    expected = engine.complete(MIXED)
    ids = [engine.submit(one) for one in MIXED]
    events = engine.step()
    engine.cancel(ids[7])  # waiting
    events += engine.step()
    engine.cancel(ids[2])  # running
    while engine.has_work:
        events += engine.step()
    ends, texts = {}, dict.fromkeys(ids, "")
    for event in events:
        assert event.request_id not in ends
        texts[event.request_id] += event.text
        if event.finish_reason:
            ends[event.request_id] = event.finish_reason
    assert [ends[id] for id in (ids[2], ids[7])] == ["cancelled", "cancelled"]
    for id, one in zip(ids, expected, strict=True):
        if id not in (ids[2], ids[7]):
            assert (ends[id], texts[id]) == (one.finish_reason, one.text)
    engine.cancel(ids[0])  # finished: no effect
    assert not engine.has_work
    assert engine.complete(MIXED) == expected


@pytest.mark.parametrize(
    ("prompt", "params", "said"),
    [
        ((), {}, "prompt is empty"),
        ((1,) * CONTEXT, {}, f"prompt is {CONTEXT} tokens; the context holds {CONTEXT}"),
        ((1,) * (CONTEXT + 1), {"max_tokens": 0}, f"prompt is {CONTEXT + 1} tokens"),
        ((1, 5_000), {}, "token id 5000"),
        ((1, -1), {}, "token id -1"),
        ((1,), {"logprobs": 21}, "logprobs is 21"),
    ],
    ids=str,
)
def test_invalid_requests_are_rejected(engine, prompt, params, said):
    with pytest.raises(UsageError, match=said):
        engine.submit(GenerationRequest(prompt, SamplingParams(**params)))
    assert not engine.has_work


def test_a_full_queue_rejects_requests():
    engine = engine_of(config_of(), max_queue=2)
    for _ in range(2):
        engine.submit(MIXED[0])
    with pytest.raises(QueueFull, match="max_queue = 2"):
        engine.submit(MIXED[0])
    engine.close()
    assert not engine.has_work
    assert len(engine.complete(MIXED)) == len(MIXED)  # the others wait for a slot


def test_invalid_sizes_are_rejected():
    for wrong in ({"slots": 0}, {"context": CONTEXT + 1}, {"decode_steps": 0}):
        with pytest.raises(UsageError, match="must be at least 1"):
            engine_of(config_of(), **wrong)


def test_prompts_are_padded_to_few_lengths():
    assert [bucket(n, 100) for n in (1, 16, 17, 33, 64, 65, 100)] == [16, 16, 32, 64, 64, 100, 100]


@pytest.mark.slow
def test_sampled_texts_begin_with_their_prompts_and_depend_only_on_the_key():
    model = initial_model(config_of(initial_std=0.5))

    def sample(seed, prompt):
        arguments = (model, config_of(), tokenizer(), [prompt, ""], [0.9, 0.9], 24)
        return sample_texts(*arguments, key=jax.random.key(seed))

    first = sample(0, "The miller")
    assert first[0].startswith("The miller")
    assert sample(0, "The miller") == first
    assert sample(0, "A farmer")[1] == first[1]
    assert sample(1, "The miller") != first
    assert len({sample(seed, "The miller")[1] for seed in range(4)}) == 4
    with pytest.raises(UsageError, match=r"that leaves no room within\s+5"):
        sample_texts(model, config_of(), tokenizer(), ["The miller carried a sack"], [0.0], 5, key=jax.random.key(0))
