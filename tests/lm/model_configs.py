"""Small models of both families for tests."""

import dataclasses

from lm.config import ModelConfig

LLAMA = ModelConfig(
    vocab_size=64, context_length=16, layers=2, width=32, heads=4, kv_heads=2, mlp_width=48, norm="rmsnorm",
    position="rope", mlp="swiglu", biases=False, tie_embeddings=True, rope_theta=10_000.0, norm_epsilon=1e-5,
    initial_std=0.2, parameter_dtype="float32", compute_dtype="float32",
)  # fmt: skip
GPT2 = dataclasses.replace(
    LLAMA, kv_heads=4, norm="layernorm", position="learned", mlp="gelu", biases=True, tie_embeddings=False
)  # untied, so that both heads are tested
MODERN = dataclasses.replace(
    LLAMA, heads=2, mlp="relu_squared", qk_norm=True, token_shift=True, logit_softcap=3.0, tie_embeddings=False,
    ngram_rows=48, ngram_longest=3,
)  # fmt: skip
"""A softcap that these logits reach, and fewer rows than there are n-grams."""
FAMILIES = {"llama": LLAMA, "gpt2": GPT2, "modern": MODERN}
