"""Small models for compression."""

import dataclasses
import functools
import random

import jax

from lm.compression.codec import Packer
from lm.config import ModelConfig
from lm.model.transformer import Transformer
from lm.parallel import one_device_mesh
from lm.tokenizer import Tokenizer, train_bpe
from tests.corpus import texts, tiny_experiment

EXPERIMENT = tiny_experiment()
CONFIG = dataclasses.replace(EXPERIMENT.model, vocab_size=512, initial_std=0.05)
"""A context of 32 tokens: most files are longer. Untrained: all tokens are about equally likely."""


@functools.cache
def tokenizer() -> Tokenizer:
    return train_bpe(texts(20), dataclasses.replace(EXPERIMENT.tokenizer, vocab_size=450))


@functools.cache
def soup(tokens: int, seed: int = 0) -> bytes:
    """Text with the distribution of an untrained model: uniformly drawn tokens."""
    words = [word for i in range(tokenizer().vocab_size - 1) if (word := tokenizer().token_bytes(i)).isascii()]
    return b"".join(random.Random(seed).choices(words, k=tokens))


def packer(seed: int = 0, config: ModelConfig = CONFIG, by: Tokenizer | None = None) -> Packer:
    model = jax.jit(Transformer, static_argnums=0)(config, jax.random.key(seed))
    return Packer(model, config, by or tokenizer(), one_device_mesh(config), step=7)
