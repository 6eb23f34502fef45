"""Parameter counts of the published models, exact, without making them."""

import dataclasses

from lm.flops import count_parameters
from lm.model.config import ModelConfig
from tests.lm.model_configs import GPT2, LLAMA


def gpt2(layers: int, width: int, heads: int) -> ModelConfig:
    return dataclasses.replace(
        GPT2, vocabulary_size=50257, context_length=1024, layers=layers, width=width, heads=heads, kv_heads=heads,
        mlp_width=4 * width, tie_embeddings=True,
    )  # fmt: skip


def test_gpt2_has_the_published_number_of_parameters():
    """124M and 1558M as Hugging Face counts the released checkpoints."""
    assert count_parameters(gpt2(12, 768, 12)) == 124_439_808
    assert count_parameters(gpt2(48, 1600, 25)) == 1_557_611_200


def test_llama3_has_the_published_number_of_parameters():
    """8B (arXiv:2407.21783), by eval_shape: nothing of its 32 GB is made."""
    config = dataclasses.replace(
        LLAMA, vocabulary_size=128_256, context_length=8192, layers=32, width=4096, heads=32, kv_heads=8,
        mlp_width=14_336, tie_embeddings=False,
    )  # fmt: skip
    assert count_parameters(config) == 8_030_261_248
