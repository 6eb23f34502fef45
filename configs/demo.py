"""The whole pipeline on a laptop, from web pages to samples: a small model by a modern recipe.

    make demo        or        python -m launch.pretrain configs/demo.py

Downloads 49 MB and trains for minutes on two cores (machines, times and bits per byte: docs/benchmarks.md).

The blocks are small to need few FLOPs, and most parameters are embeddings of token pairs, which cost memory but no
FLOPs (docs/modern_recipe.md).
"""

from configs.experiment import Experiment
from configs.recipes import gristmill as recipe
from configs.recipes.demo_pages import PACKAGES
from data_prep.config import PagesConfig, ShardsConfig
from lm.config import (
    EvaluateConfig,
    MeshConfig,
    ModelConfig,
    MuonConfig,
    OptimizerConfig,
    SampleConfig,
    SpikeConfig,
    TokenizerConfig,
    TrainConfig,
)

VOCABULARY = 4096
CONTEXT = 256

MODEL = ModelConfig(
    vocab_size=VOCABULARY,
    context_length=CONTEXT,
    layers=3,
    width=96,
    heads=2,
    kv_heads=2,
    mlp_width=384,
    norm="rmsnorm",
    position="rope",
    mlp="relu_squared",
    biases=False,
    tie_embeddings=True,
    rope_theta=10_000.0,
    norm_epsilon=1e-5,
    initial_std=0.05,
    parameter_dtype="float32",
    compute_dtype="float32",
    qk_norm=True,
    zero_init=True,
    token_shift=True,
    ngram_rows=32_768,
)

TRAIN = TrainConfig(
    steps=1_100,
    batch_size=8,
    seed=0,
    optimizer=OptimizerConfig(
        learning_rate=0.02,  # for embeddings, scales and token shift; tried .008 to .032
        final_learning_rate=0.0,
        warmup_steps=20,
        beta1=0.9,
        beta2=0.95,
        epsilon=1e-8,
        weight_decay=0.1,
        clip_norm=1.0,
        schedule="linear",
        muon=MuonConfig(learning_rate=0.015, momentum=0.95, newton_schulz_steps=5),
    ),
    validate_every=110,
    validation_batches=8,
    sample_every=220,
    sample_prompt="The people",
    sample_tokens=96,
    checkpoint_every=220,
    checkpoints_kept=2,
    snapshot_steps=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512),  # like Pythia, arXiv:2304.01373
    spikes=SpikeConfig(window=128),
    log_every=10,
    mesh=MeshConfig(),
    loss_chunks=4,
    loader_threads=1,
)


def get_config() -> Experiment:
    return Experiment(
        pages=PagesConfig(packages=PACKAGES),
        documents=recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, measure_other_languages=True),
        # docs/tour.md shows this vocabulary, which has no chat tokens; finetuning appends them.
        tokenizer=TokenizerConfig(vocab_size=VOCABULARY, split_pattern="cl100k", train_characters=50_000_000),
        shards=ShardsConfig(record_length=4096, token_dtype="uint16", train_shards=2, validation_fraction=0.025),
        model=MODEL,
        train=TRAIN,
        evaluate=EvaluateConfig(stride=128, batch_size=16),
        sample=SampleConfig(
            prompts=("The history of", "My fellow citizens,", "The city was founded"),
            temperatures=(0.5, 0.9),
            tokens=160,
            seed=0,
        ),
    )
