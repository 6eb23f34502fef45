"""Samples follow the distribution of each row's settings, and are always ids of the tokenizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lm.inference.requests import SamplingParams
from lm.inference.sampling import SUMMED_TOGETHER, Sampling, at_share, draw

SHARES = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
ROWS, WIDER = 6000, 9


@functools.cache
def compiled():
    return jax.jit(draw, static_argnums=4)


def drawn(params, logits_BV, seen_BV=None):
    """Sample each row; its logits have three extra ids, the most likely ones, which must never be sampled."""
    logits_BW = np.full((len(params), WIDER), 50.0, np.float32)
    logits_BW[:, : logits_BV.shape[1]] = logits_BV
    seen_BV = np.zeros(logits_BV.shape, bool) if seen_BV is None else seen_BV
    position_B = jnp.full(len(params), 7, jnp.int32)
    return compiled()(jnp.array(logits_BW), jnp.array(seen_BV), Sampling.of(params), position_B, 3)


def expected(shares, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, penalty=1.0, seen=()):
    """The same distribution by the definitions."""
    logits = np.log(shares)
    for id in seen:
        logits[id] = logits[id] / penalty if logits[id] > 0 else logits[id] * penalty
    shares = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    kept = sorted(range(len(shares)), key=lambda id: -shares[id])[: top_k or None]
    total, nucleus = 0.0, []
    for id in kept:
        if total < top_p * shares[kept].sum():
            nucleus.append(id)
            total += shares[id]
    left = np.zeros_like(shares)
    for id in nucleus:
        if shares[id] >= min_p * shares.max():
            left[id] = shares[id]
    return left / left.sum()


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 1.7, "top_k": 3},
        {"top_p": 0.7},
        {"top_k": 4, "top_p": 0.85},
        {"min_p": 0.3},
        {"temperature": 2.0, "min_p": 0.5, "top_k": 5},
        {"repetition_penalty": 1.8, "top_k": 4},
        {"top_p": 1e-6},
    ],
    ids=str,
)
def test_samples_follow_the_distribution_of_the_settings(settings):
    order = np.array([3, 0, 5, 1, 4, 2])  # likelihoods are not in the order of the ids
    shares, seen = SHARES[order], (1, 2)
    seen_BV = np.isin(np.arange(6), seen)[None].repeat(ROWS, 0)
    params = [SamplingParams(seed=seed, **settings) for seed in range(ROWS)]
    ids = np.asarray(drawn(params, np.log(shares)[None].repeat(ROWS, 0), seen_BV).token_B)
    penalty = settings.pop("repetition_penalty", 1.0)
    wanted = expected(shares, **settings, penalty=penalty, seen=seen)
    found = np.bincount(ids, minlength=6) / ROWS
    assert_allclose(found, wanted, atol=0.025)
    assert (found[wanted == 0] == 0).all()


def test_a_sample_does_not_depend_on_other_rows():
    rng = np.random.default_rng(0)
    logits_BV = rng.normal(size=(ROWS, 6)).astype(np.float32)
    mixed = [
        SamplingParams(temperature=0.0),
        SamplingParams(seed=1),
        SamplingParams(seed=2, top_k=2, logprobs=2),
        SamplingParams(seed=3, top_p=0.5, repetition_penalty=1.5),
    ] * (ROWS // 4)
    together = drawn(mixed, logits_BV, logits_BV > 1)
    plain = drawn([one if i % 4 < 2 else SamplingParams() for i, one in enumerate(mixed)], logits_BV, logits_BV > 1)
    greedy = np.arange(ROWS) % 4 == 0
    assert_array_equal(np.asarray(together.token_B)[greedy], logits_BV.argmax(1)[greedy])
    own = np.arange(ROWS) % 4 < 2
    assert_array_equal(np.asarray(together.token_B)[own], np.asarray(plain.token_B)[own])


def test_samples_depend_on_the_seed_and_the_position():
    logits_BV = np.zeros((ROWS, 6), np.float32)
    seeds = [SamplingParams(seed=seed % 100) for seed in range(ROWS)]
    ids = np.asarray(drawn(seeds, logits_BV).token_B).reshape(-1, 100)
    assert (ids == ids[:1]).all() and len(set(ids[0].tolist())) == 6


def test_log_probabilities_are_computed_before_any_setting():
    logits_BV = np.log(SHARES)[None].repeat(ROWS, 0).astype(np.float32)
    found = drawn([SamplingParams(seed=i, logprobs=3, temperature=0.3, top_k=2) for i in range(ROWS)], logits_BV)
    total = np.log(np.exp(logits_BV[0]).sum() + 3 * np.exp(50.0))
    assert_allclose(found.logprob_B, logits_BV[0][np.asarray(found.token_B)] - total, rtol=1e-6)
    assert np.asarray(found.top_BK)[0].tolist() == [0, 1, 2]
    assert_allclose(found.top_logprob_BK[0], logits_BV[0, :3] - total, rtol=1e-6)


def test_the_lowest_and_the_highest_temperatures_have_no_infinities():
    logits_BV = np.array([[1e4, -1e4, 0, 1, 2, 3]], np.float32).repeat(ROWS, 0)
    cold = drawn([SamplingParams(temperature=1e-30, seed=i) for i in range(ROWS)], logits_BV)
    assert set(np.asarray(cold.token_B).tolist()) == {0}
    hot = drawn([SamplingParams(temperature=1e30, seed=i) for i in range(ROWS)], logits_BV)
    assert_allclose(np.bincount(hot.token_B, minlength=6) / ROWS, 1 / 6, atol=0.025)


def test_ids_of_weight_0_are_never_sampled_despite_rounding():
    """By rounding, XLA's running sums can grow in blocks of weight 0: targets there must move on to the next weight."""
    blocks, found = 400, 0
    at_shares = jax.jit(jax.vmap(at_share, (None, 0)))
    for seed in (0, 2, 9, 12, 16, 18, 23, 27):
        rng = np.random.default_rng(seed)
        of_blocks = rng.random(blocks).astype(np.float32) * (rng.random(blocks) < 0.5)
        weights_V = np.zeros((blocks, SUMMED_TOGETHER), np.float32)
        weights_V[:, 7] = of_blocks
        weights_V = weights_V.reshape(-1)[:-5]  # the last block is not full
        until = np.asarray(jax.jit(jnp.cumsum)(of_blocks))
        grew = 1 + np.flatnonzero((np.diff(until) > 0) & (of_blocks[1:] == 0))
        found += len(grew)
        steps = (until[grew - 1] / until[-1] * 2**23).astype(np.int64)[:, None] + np.arange(-3, 4)
        shares = np.pad((steps.reshape(-1) / 2**23).astype(np.float32), (0, 28 - steps.size), constant_values=0.5)
        assert (weights_V[np.asarray(at_shares(weights_V, shares))] > 0).all()
    assert found  # otherwise the sums above round differently, and the test needs other values
