"""Model families: GPT-2, Llama 3, and a modern recipe, with the values that all sizes share. Sizes are in the
configs."""

import dataclasses

from lm.config import ModelConfig, RopeScalingConfig

GPT2_VOCABULARY, LLAMA3_VOCABULARY = 50_257, 128_256
LLAMA31_SCALING = RopeScalingConfig(
    factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context_length=8192
)
"""From Llama 3.1's model card: extends the context from 8,192 to 131,072 tokens. To continue training Llama 3, set it
as model.rope_scaling in your config, together with model.context_length."""


def gpt2(layers: int, width: int, heads: int) -> ModelConfig:
    """Return a GPT-2 model config (Radford et al. 2019; openai/gpt-2: src/model.py), with context 1,024."""
    return ModelConfig(
        vocab_size=GPT2_VOCABULARY,
        context_length=1024,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        mlp_width=4 * width,
        norm="layernorm",
        position="learned",
        mlp="gelu",
        biases=True,
        tie_embeddings=True,
        rope_theta=10_000.0,
        norm_epsilon=1e-5,
        initial_std=0.02,
        parameter_dtype="float32",
        compute_dtype="bfloat16",
    )


def llama3(layers: int, width: int, heads: int, mlp_width: int, *, tie_embeddings: bool = False) -> ModelConfig:
    """Return a Llama 3 model config (arXiv:2407.21783, table 3): context 8,192; 8 key-value heads as in all sizes."""
    return ModelConfig(
        vocab_size=LLAMA3_VOCABULARY,
        context_length=8192,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=8,
        mlp_width=mlp_width,
        norm="rmsnorm",
        position="rope",
        mlp="swiglu",
        biases=False,
        tie_embeddings=tie_embeddings,
        rope_theta=500_000.0,
        norm_epsilon=1e-5,
        initial_std=0.02,
        parameter_dtype="float32",
        compute_dtype="bfloat16",
    )


def modern(model: ModelConfig) -> ModelConfig:
    """Return `model` in the same size with rotary positions, RMSNorm, squared ReLU, query-key norm, zero initialization
    and a logit softcap, whose sources are in the field descriptions of ModelConfig."""
    return dataclasses.replace(
        model,
        norm="rmsnorm",
        position="rope",
        mlp="relu_squared",
        biases=False,
        qk_norm=True,
        zero_init=True,
        logit_softcap=30.0,
    )
