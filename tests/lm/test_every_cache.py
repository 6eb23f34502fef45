"""For each block, each option and users' blocks, what is computed with a cache, or with a context that continuations
share, has the log-probabilities of the whole forward pass; if not, it is refused (tests/lm/test_own_block.py)."""

from dataclasses import fields, replace

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lm.config import ModelConfig, RopeScalingConfig
from lm.evaluation.log_likelihood import LogLikelihoods, Request
from lm.inference import steps
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.model.attention.mask import AttentionMask
from lm.model.layers import ACTIVATIONS, NORMS
from lm.model.transformer import BLOCKS, empty_cache
from lm.parallel import one_device_mesh
from lm.trusted_code import module_code, trust
from tests.lm.model_configs import FAMILIES, GPT2, LLAMA, MODERN, random_model
from tests.lm.reinforcement.test_sampler import TALKER

OWN = "tests.lm.own_parts"
PARTS = replace(LLAMA, block=f"{OWN}.ParallelBlock", norm=f"{OWN}.UnitNorm", mlp=f"{OWN}.geglu")
CONVOLUTION = replace(LLAMA, block=f"{OWN}.ConvolutionBlock")
OPTIONS = {
    "windows": replace(LLAMA, layers=3, attention_windows=(4, 0)),
    **FAMILIES,
    "head_dim": replace(GPT2, width=34, head_dim=6),
    "scaled": replace(LLAMA, rope_scaling=RopeScalingConfig(8.0, 1.0, 4.0, 8)),
    "scanned": replace(MODERN, scan_layers=True, attention_windows=(5,)),
    "parallel": PARTS,
    "convolution": CONVOLUTION,
    "convolution, scanned": replace(CONVOLUTION, ngram_rows=48, scan_layers=True),
}
CACHED = {name: replace(one, vocab_size=TALKER.vocab_size) for name, one in OPTIONS.items()}
SCORED = CACHED | {"undeclared": replace(CACHED["llama"], block=f"{OWN}.UndeclaredBlock")}
ALIKE = {
    "vocab_size", "context_length", "mlp_width", "rope_theta", "norm_epsilon", "initial_std", "zero_init",
    "parameter_dtype", "compute_dtype", "attention", "ngram_longest",
}  # fmt: skip
"""Fields of ModelConfig that no case has to change: sizes, constants, types and implementations."""


@pytest.fixture(autouse=True)
def _trusted():
    trust(module_code(OWN))


def rows(configs: dict[str, ModelConfig]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("config", configs.values(), ids=configs)


@jax.jit
def whole(model, tokens_BT, segments_BT):
    """Return the log-probabilities of every next token, by a forward pass without a cache."""
    return jax.nn.log_softmax(model.logits(model.read(tokens_BT, segments_BT)))


@jax.jit
def read_on(model, tokens_BT, positions_BT, segments_BT, cache):
    x_BTD, cache = model(tokens_BT, positions_BT, AttentionMask(segments_BT), cache)
    return jax.nn.log_softmax(model.logits(x_BTD)), cache


def nats(model, ids: list[int]) -> np.ndarray:
    """Return the log-probability of each of the ids after the first."""
    ids_BT = np.zeros((3, LLAMA.context_length), np.int32)
    ids_BT[0, : len(ids)] = ids
    return np.asarray(whole(model, ids_BT, np.ones_like(ids_BT)))[0, np.arange(len(ids) - 1), ids[1:]]


@pytest.mark.fast_rows
@rows(CACHED)
def test_rows_read_in_pieces_equal_the_whole_forward_pass(config):
    """Prompts of different lengths with padding, a second piece, which is empty for one row, and single tokens until
    all rows are full; documents end within and between pieces."""
    model, length = random_model(config), config.context_length
    tokens_BT = np.random.default_rng(0).integers(0, config.vocab_size, (3, length), np.int32)
    segments_BT = np.ones_like(tokens_BT)
    segments_BT[1, 3:], segments_BT[2, 6:] = 2, 2
    expected_BTV, cache = np.asarray(whole(model, tokens_BT, segments_BT)), empty_cache(config, 3)
    read_B = np.zeros(3, int)
    for counts in ([1, 5, 4], [4, 0, 3], *[[1, 1, 1]] * (length - 5)):
        counts_B, size = np.minimum(counts, length - read_B), 5 if max(counts) > 1 else 1
        positions_BT = read_B[:, None] + np.arange(size)
        at_BT, real_BT = np.minimum(positions_BT, length - 1), np.arange(size) < counts_B[:, None]
        take = lambda values_BT, at_BT=at_BT: np.take_along_axis(values_BT, at_BT, axis=1)
        found_BTV, cache = read_on(model, take(tokens_BT), positions_BT, take(segments_BT) * real_BT, cache)
        for row, count in enumerate(counts_B):
            expected_TV = expected_BTV[row, read_B[row] : read_B[row] + count]
            assert_allclose(found_BTV[row, :count], expected_TV, rtol=0, atol=1e-5)
        read_B += counts_B
    assert_array_equal(cache.lengths_B, [length] * 3)


@pytest.mark.slow
@rows(CACHED)
def test_generated_text_has_the_log_probabilities_of_the_whole_forward_pass(config):
    """Requests of different lengths, more than there are slots."""
    model, draw = random_model(config), np.random.default_rng(1)
    prompts = [tuple(draw.integers(0, TALKER.vocab_size, size).tolist()) for size in (1, 7, 3, 4)]
    asked = [GenerationRequest(one, SamplingParams(seed=1, max_tokens=16, logprobs=0)) for one in prompts]
    drawn = Engine(model, config, TALKER, slots=2, decode_steps=4).complete(asked)
    assert sum(len(one.logprobs) for one in drawn) > 12
    for prompt, one in zip(prompts, drawn, strict=True):
        ids = [*prompt, *(token.token for token in one.logprobs)]
        found = np.array([token.logprob for token in one.logprobs], np.float64)
        assert_allclose(found, nats(model, ids)[len(prompt) - 1 :], rtol=0, atol=1e-5)


@pytest.mark.fast_rows
@rows(SCORED)
def test_continuations_of_one_context_have_the_log_likelihoods_of_the_whole_forward_pass(config):
    """So do tasks, evaluators and lm-eval, which all ask LogLikelihoods; and prompts scored by the server."""
    model, scorer, shared = random_model(config), LogLikelihoods(config, 2), [5, 9, 3]
    requests = [Request(shared, tail) for tail in ([7], [8, 2], [8, 2, 4, 1])]
    for request, score in zip(requests, scorer.score(model, one_device_mesh(config), requests), strict=True):
        expected = nats(model, [*shared, *request.continuation])[len(shared) - 1 :].sum()
        assert score.log_likelihood == pytest.approx(expected, abs=1e-5)
    plain = config.block in ("pre_norm", PARTS.block) and not config.token_shift and not config.ngram_rows
    assert scorer.branches(one_device_mesh(config)) == (plain and not config.attention_windows)
    ids = [*shared, 8, 2]
    found = steps.score(model, config.vocab_size, 1, np.array([ids + [0] * 3]))[0][: len(ids) - 1]
    assert_allclose(found, nats(model, ids), rtol=0, atol=1e-5)


def test_each_option_of_a_model_is_a_case():
    for field in fields(ModelConfig):
        values = {getattr(config, field.name) for config in CACHED.values()}
        assert field.name in ALIKE or len(values) > 1, field.name
        assert values >= {"block": BLOCKS, "norm": NORMS, "mlp": ACTIVATIONS}.get(field.name, {}).keys()
