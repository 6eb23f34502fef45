"""Generation: the greedy path repeats the forward pass, prompts stay, forbidden ids are never drawn, documents end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UsageError
from lm.inference.generate import continue_tokens, draw, sample_texts
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


def test_greedy_tokens_are_the_argmax_of_the_whole_forward_pass():
    model = make()
    prompts_BS = jnp.zeros((2, 20), jnp.int32).at[0, :3].set(jnp.array([5, 6, 7])).at[1, :6].set(9)
    lengths_B = jnp.array([3, 6], jnp.int32)
    temperature_B = jnp.zeros(2, jnp.float32)
    key = jax.random.key(0)
    tokens_BS = np.asarray(continue_tokens(model, CONFIG, 320, 6, prompts_BS, lengths_B, temperature_B, key))
    forward = jax.jit(lambda model, tokens_BS: model.logits(model.read(tokens_BS, jnp.ones_like(tokens_BS))))
    logits_BSV = np.asarray(forward(model, jnp.asarray(tokens_BS)))
    for row, length in enumerate((3, 6)):
        assert (tokens_BS[row, :length] == np.asarray(prompts_BS)[row, :length]).all()
        np.testing.assert_array_equal(tokens_BS[row, length:], logits_BSV[row, length - 1 : -1].argmax(-1))


@pytest.mark.parametrize("change", [{}, {"scan_layers": True}, {"token_shift": True, "ngram_rows": 32}], ids=str)
def test_a_row_is_continued_alike_whatever_stands_beside_it(change):
    """Its prompt is read at once with longer and shorter ones, and with more or less padding."""
    config = dataclasses.replace(CONFIG, **change)
    model, length = make(config=config), 20
    prompts_BS = jnp.asarray(np.random.default_rng(0).integers(0, 320, (3, length), np.int32))
    lengths_B, warm_B = jnp.array([4, 9, 1]), jnp.array([0.8, 0.0, 0.8])
    run = lambda longest, rows: np.asarray(
        continue_tokens(
            model, config, 320, longest, prompts_BS[:rows], lengths_B[:rows], warm_B[:rows], jax.random.key(0)
        )
    )
    together = run(9, 3)
    for row, count in enumerate((4, 9, 1)):
        np.testing.assert_array_equal(together[row, :count], prompts_BS[row, :count])
        assert (together[row, count:] != prompts_BS[row, count:]).any()
    np.testing.assert_array_equal(run(length, 1), together[:1])


def test_draws_follow_the_softmax():
    logits_BV = jnp.tile(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), (4000, 1))
    keys_B = jax.random.split(jax.random.key(1), 4000)
    for temperature, expected in ((1.0, [0.5, 0.3, 0.2]), (0.5, np.array([0.25, 0.09, 0.04]) / 0.38)):
        ids = np.asarray(draw(logits_BV, jnp.full(4000, temperature), keys_B))
        np.testing.assert_allclose(np.bincount(ids, minlength=3) / 4000, expected, atol=0.03)
    assert set(np.asarray(draw(logits_BV, jnp.zeros(4000), keys_B)).tolist()) == {0}


def test_rows_beyond_the_tokenizers_symbols_are_never_drawn():
    prompts_BS, lengths_B = jnp.zeros((4, 30), jnp.int32), jnp.ones(4, jnp.int32)
    hot = jnp.full(4, 50.0)
    tokens_BS = continue_tokens(make(), CONFIG, 40, 1, prompts_BS, lengths_B, hot, jax.random.key(0))
    assert int(tokens_BS.max()) < 40 and int(tokens_BS.max()) > 20


def test_texts_begin_with_their_prompt_and_depend_on_the_key_alone(tokenizer):
    model = make()

    def sample(seed):
        arguments = (model, CONFIG, tokenizer, ["The miller", ""], [0.9, 0.9], 24)
        return sample_texts(*arguments, jax.random.key(seed))

    first = sample(0)
    assert first[0].startswith("The miller")
    assert sample(0) == first
    assert sample(1) != first


def test_a_text_ends_where_its_document_ends(tokenizer):
    """A model whose every prediction is <|endoftext|> says nothing behind the prompt."""
    model = make()
    end = tokenizer.bos_id
    direction = jnp.ones(CONFIG.width)
    embedding = jnp.zeros((CONFIG.vocab_size, CONFIG.width)).at[end].set(direction)
    model = jax.tree.map(jnp.zeros_like, model)
    model.embedding[...] = embedding + 0.01 * direction[None]
    model.norm.scale[...] = direction
    (text,) = sample_texts(model, CONFIG, tokenizer, ["The miller"], [0.0], 24, jax.random.key(0))
    assert text == "The miller"


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer):
    with pytest.raises(UsageError, match=r"that leaves nothing of\s+5"):
        sample_texts(make(), CONFIG, tokenizer, ["The miller carried a sack of grain"], [0.0], 5, jax.random.key(0))
