"""The model interface of lm-eval: likelihoods and texts follow from the forward pass."""

from dataclasses import astuple, replace

import pytest
from lm_eval.api.instance import Instance

from lm.errors import UsageError
from lm.evaluation.harness import HarnessLM
from lm.inference.requests import SamplingParams
from lm.model.transformer import Transformer
from lm.parallel import one_device_mesh
from lm.tokenizer import load
from tests.corpus import texts, tiny_experiment
from tests.lm.inference.models import log_probabilities
from tests.lm.model_configs import initial_model

CONTEXT = 64
MODEL = replace(tiny_experiment().model, layers=1, context_length=CONTEXT, initial_std=0.2)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return initial_model(MODEL, 7)


@pytest.fixture(scope="module")
def harness(model, tokens) -> HarnessLM:
    return HarnessLM(model, MODEL, load(tokens / "tokenizer"), one_device_mesh(MODEL), batch_size=4)


@pytest.fixture(scope="module")
def log_p(model):
    """ids -> log p of the next token, by a forward pass over the whole row."""
    of_each = log_probabilities(model, CONTEXT)
    return lambda ids: of_each(ids)[-1]


def asked(kind, *arguments) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


@pytest.mark.slow
def test_generated_text_is_greedy_decoding(harness, log_p):
    tokenizer, prompts = harness.tokenizer, ["The miller", "", "A farmer found", texts(1)[0]]
    written = []
    for prompt in prompts:
        ids = [tokenizer.bos_id, *tokenizer.encode(prompt)][-(CONTEXT - 9) :]
        for _ in range(9):
            ids.append(int(log_p(ids)[: tokenizer.vocab_size].argmax()))
        new = ids[-9:]
        ends = [n for n, id in enumerate(new) if id in tokenizer.eos_ids]
        written.append(tokenizer.decode(new[: ends[0]] if ends else new))
    question = lambda prompt, **more: asked("generate_until", prompt, {"max_gen_toks": 9, **more})
    assert harness.generate_until([question(prompt) for prompt in prompts]) == written
    stop = written[0][3:5]
    assert stop and harness.generate_until([question(prompts[0], until=["\0", stop])]) == [
        written[0].partition(stop)[0]
    ]  # fmt: skip
    assert harness.generate_until([question(prompts[0], until=stop, do_sample=False, temperature=3.0)]) == [
        written[0].partition(stop)[0]
    ]  # fmt: skip


def test_long_answers_truncate_the_context_to_no_less_than_half(harness):
    sampled = {"max_gen_toks": 10_000, "do_sample": True, "temperature": 0.5, "top_p": 0.9}
    prompt, params = astuple(harness.prompt_of(3, texts(1)[0], sampled))
    assert len(prompt) == CONTEXT // 2 and list(prompt) == harness.tokenizer.encode(texts(1)[0])[-len(prompt) :]
    assert params == astuple(SamplingParams(CONTEXT // 2, temperature=0.5, top_p=0.9, seed=3))
    short = harness.prompt_of(0, "The miller", {"until": [], "temperature": 0.5, "top_k": 2})
    assert short.params == SamplingParams(CONTEXT - 1 - len(harness.tokenizer.encode("The miller")), temperature=0.0)
    with pytest.raises(UsageError, match=r"generation with num_beams = 5, but only do_sample, max_gen_toks"):
        harness.prompt_of(0, "a", {"num_beams": 5})


def test_a_document_longer_than_the_context_counts_each_token_once(harness, log_p):
    tokenizer = harness.tokenizer
    for text in (texts(1)[0][:300], "The miller", ""):
        ids, nats = [tokenizer.bos_id, *tokenizer.encode(text)], 0.0
        for at in range(1, len(ids)):
            end = min(CONTEXT * -(-at // CONTEXT), len(ids) - 1)
            nats += log_p(ids[max(0, end - CONTEXT) : at])[ids[at]]
        assert harness.loglikelihood_rolling([asked("loglikelihood_rolling", text)]) == [pytest.approx(nats, abs=2e-3)]


def test_contexts_begin_with_bos_by_default(harness, log_p, model):
    tokenizer = harness.tokenizer
    ids = tokenizer.encode("The miller found")
    cut = len(tokenizer.encode("The miller"))
    bare = HarnessLM(model, MODEL, tokenizer, harness.mesh, batch_size=4, add_bos_token=False)
    bare.log_likelihoods = harness.log_likelihoods  # avoid compiling again
    for one, head in ((harness, [tokenizer.bos_id]), (bare, [])):
        expected = sum(log_p([*head, *ids[:at]])[ids[at]] for at in range(cut, len(ids)))
        ((nats, greedy),) = one.loglikelihood([asked("loglikelihood", "The miller", " found")])
        assert nats == pytest.approx(expected, abs=1e-3) and not greedy
    question = [asked("loglikelihood", "", "found")]
    assert bare.loglikelihood(question) == harness.loglikelihood(question)
