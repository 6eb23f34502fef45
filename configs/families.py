"""GPT-2 and Llama 3: their shapes, and an experiment on FineWeb's pages around either.

The numbers that tell one size from another stand in the config of that size; what a family shares stands here.
"""

import dataclasses

from configs.experiment import Experiment
from configs.fineweb import get_config as on_common_crawl
from lm.config import MeshConfig, ModelConfig, RopeScalingConfig, TokenizerConfig

GPT2_VOCABULARY, LLAMA3_VOCABULARY = 50_257, 128_256
LLAMA31_SCALING = RopeScalingConfig(
    factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context_length=8192
)
"""Of Llama 3.1's model card: from 8,192 tokens of context to 131,072. Give it as model.rope_scaling in a config of your
own, with model.context_length, to train on where Llama 3 ended."""


def gpt2(layers: int, width: int, heads: int) -> ModelConfig:
    """A model of GPT-2's family (Radford et al. 2019; openai/gpt-2: src/model.py), context 1,024."""
    return ModelConfig(
        vocabulary_size=GPT2_VOCABULARY,
        context_length=1024,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        mlp_width=4 * width,
        norm="layernorm",
        position="learned",
        mlp="gelu",
        tie_embeddings=True,
        rope_theta=10_000.0,
        norm_epsilon=1e-5,
        initial_std=0.02,
        parameter_dtype="float32",
        compute_dtype="bfloat16",
    )


def llama3(layers: int, width: int, heads: int, mlp_width: int, *, tie_embeddings: bool = False) -> ModelConfig:
    """A model of Llama 3's family (arXiv:2407.21783, table 3), context 8,192; 8 key and value heads in all sizes."""
    return ModelConfig(
        vocabulary_size=LLAMA3_VOCABULARY,
        context_length=8192,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=8,
        mlp_width=mlp_width,
        norm="rmsnorm",
        position="rope",
        mlp="swiglu",
        tie_embeddings=tie_embeddings,
        rope_theta=500_000.0,
        norm_epsilon=1e-5,
        initial_std=0.02,
        parameter_dtype="float32",
        compute_dtype="bfloat16",
    )


def on_fineweb(
    model: ModelConfig,
    tokenizer: str,
    *,
    tokens: float,
    batch_tokens: int,
    learning_rate: float,
    warmup_steps: int,
    final_share: float = 0.1,
    fsdp: int = 1,
) -> Experiment:
    """The model trained on FineWeb's pages, which configs/fineweb.py prepares, with a published `tokenizer`.

    `tokens` in all and `batch_tokens` a step; `final_share` of the peak learning rate is left at the end; parameters
    are cut over `fsdp` devices. Give the pages (--pages.tables of a published FineWeb, or more files of the crawl): the
    ten files that the config fetches hold about a thousandth of what the largest of these want.
    """
    base = on_common_crawl()
    steps = round(tokens / batch_tokens)
    optimizer = dataclasses.replace(
        base.train.optimizer,
        learning_rate=learning_rate,
        final_learning_rate=learning_rate * final_share,
        warmup_steps=warmup_steps,
    )
    train = dataclasses.replace(
        base.train,
        steps=steps,
        batch_size=batch_tokens // model.context_length,
        optimizer=optimizer,
        mesh=MeshConfig(fsdp=fsdp),
        loss_parts=8,
    )
    shards = dataclasses.replace(
        base.shards, record_length=8192, token_dtype="uint16" if model.vocabulary_size <= 2**16 else "uint32"
    )
    vocabulary = TokenizerConfig(
        vocabulary_size=model.vocabulary_size, split_pattern="gpt2", train_characters=500_000_000, load=tokenizer
    )
    return dataclasses.replace(base, tokenizer=vocabulary, shards=shards, model=model, train=train)
