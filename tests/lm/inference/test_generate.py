"""Whole texts: they begin with their prompts and depend on the key alone."""

import dataclasses

import jax
import pytest

from lm.errors import UsageError
from lm.inference.generate import sample_texts
from lm.model.transformer import Transformer
from lm.tokenizer import train_bpe
from tests.corpus import texts, tiny_experiment

EXPERIMENT = tiny_experiment()
CONFIG = EXPERIMENT.model


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(texts(20), EXPERIMENT.tokenizer)


def make(seed=0, config=CONFIG):
    sharper = dataclasses.replace(config, initial_std=0.5)  # so that the likeliest token is clear
    return jax.jit(Transformer, static_argnums=0)(sharper, jax.random.key(seed))


def test_texts_begin_with_their_prompt_and_depend_on_the_key_alone(tokenizer):
    model = make()

    def sample(seed, *prompts):
        arguments = (model, CONFIG, tokenizer, [*prompts, ""], [0.9, 0.9], 24)
        return sample_texts(*arguments, jax.random.key(seed))

    first = sample(0, "The miller")
    assert first[0].startswith("The miller")
    assert sample(0, "The miller") == first
    assert sample(0, "A farmer")[1] == first[1]
    assert sample(1, "The miller") != first
    assert len({sample(seed, "The miller")[1] for seed in range(4)}) == 4


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer):
    with pytest.raises(UsageError, match=r"that leaves no room within\s+5"):
        sample_texts(make(), CONFIG, tokenizer, ["The miller carried a sack of grain"], [0.0], 5, jax.random.key(0))
