"""Clean Common Crawl by our recipe, based on FineWeb's (Penedo et al. 2024), and train GPT-2 small on it.

    python -m launch.pretrain configs/fineweb.py --pages.common-crawl.files 100

One file of a crawl is about 1 GB. The thresholds are in configs/recipes/gristmill.py; docs/recipes.md compares them
with the rules of the published FineWeb (configs/fineweb_2024.py) and of current datatrove (configs/datatrove_0_10.py).
To start from the published FineWeb, pass its files and disable the filters:

    python -m launch.pretrain configs/fineweb.py --pages.tables 'sample/*.parquet' --documents.steps

On one machine, use this config for the data; the model is GPT-2 with 124 M parameters (Radford et al. 2019).
"""

import dataclasses

from configs.experiment import Experiment
from configs.layouts import first_layout
from configs.recipes import gristmill as recipe
from configs.recipes.families import GPT2_VOCABULARY, gpt2
from data_prep.config import CommonCrawlPages, PagesConfig, ShardsConfig
from lm.config import (
    EvaluateConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    SampleConfig,
    SpikeConfig,
    TokenizerConfig,
    TrainConfig,
)
from lm.config.tokenizer import SPECIAL_TOKENS


def get_config() -> Experiment:
    return Experiment(
        pages=PagesConfig(
            common_crawl=CommonCrawlPages(
                crawl="CC-MAIN-2024-10", kind="warc", files=10, choice="spread", first_file=0, seed=0
            ),
        ),
        documents=recipe.documents("CC-MAIN-2024-10", recipe.URL_FILTER),
        tokenizer=TokenizerConfig(
            vocab_size=GPT2_VOCABULARY,
            split_pattern="gpt2",
            train_characters=500_000_000,
            special_tokens=SPECIAL_TOKENS,
        ),
        shards=ShardsConfig(record_length=4096, token_dtype="uint16", train_shards=16, validation_fraction=0.005),
        # The vocabulary is rounded up to a multiple of 128.
        model=dataclasses.replace(gpt2(layers=12, width=768, heads=12), vocab_size=50_304),
        train=TrainConfig(
            steps=19_073,  # 10 B tokens
            batch_size=512,
            seed=0,
            optimizer=OptimizerConfig(
                learning_rate=6e-4,
                final_learning_rate=6e-5,
                warmup_steps=700,
                beta1=0.9,
                beta2=0.95,
                epsilon=1e-8,
                weight_decay=0.1,
                clip_norm=1.0,
            ),
            validate_every=250,
            validation_batches=20,
            sample_every=1000,
            sample_prompt="Hello, I am a language model,",
            sample_tokens=64,
            checkpoint_every=1000,
            checkpoints_kept=2,
            spikes=SpikeConfig(window=128),
            log_every=10,
            mesh=MeshConfig(),
            loss_chunks=8,
            loader_threads=1,
        ),
        evaluate=EvaluateConfig(stride=512, batch_size=16),
        sample=SampleConfig(
            prompts=("The history of", "The best way to", "In 1969"), temperatures=(0.5, 0.9), tokens=256, seed=0
        ),
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
    layout: str,
) -> Experiment:
    """Return this file's experiment with another `model`, a published `tokenizer`, and a longer training.

    Trains on `tokens` tokens, `batch_tokens` per step, with the first layout of the config called `layout`; the final
    learning rate is `final_share` of the peak. Set the pages (--pages.tables of a published FineWeb, or more files of
    the crawl): ten files are repeated many times before that many tokens are read.
    """
    base = get_config()
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
    )
    model, train = first_layout(layout).of(model, train)
    shards = dataclasses.replace(
        base.shards,
        record_length=max(8192, model.context_length),
        token_dtype="uint16" if model.vocab_size <= 2**16 else "uint32",
        # Twice the tokens that are evaluated: the size of the corpus is an estimate.
        validation_tokens=max(base.shards.validation_tokens, 2 * train.validation_batches * batch_tokens),
    )
    vocabulary = TokenizerConfig(
        vocab_size=model.vocab_size,
        split_pattern="gpt2",
        train_characters=500_000_000,
        load=tokenizer,
        special_tokens=SPECIAL_TOKENS,
    )
    return dataclasses.replace(base, tokenizer=vocabulary, shards=shards, model=model, train=train)
