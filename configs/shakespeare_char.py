"""Character-level Shakespeare: the classic small experiment on a CPU, 0.80 M parameters.

    python -m launch.pretrain configs/shakespeare_char.py --pages.tables tinyshakespeare.txt

The text (char-rnn's, 1.1 MB, 65 characters) is not downloaded: pass its path. Model, optimizer and the 2,000 steps of
12 x 64 characters are those of nanoGPT's CPU setting, which ends at a loss of 1.88 nats per character on the last tenth
of the text; expect the same here (docs/benchmarks.md), in about three minutes on two cores.
`shakespeare_char_modern.py` reaches a much lower loss with the same number of characters.
"""

import dataclasses

from configs import demo
from configs.experiment import Experiment
from configs.recipes.families import gpt2
from data_prep.config import LanguageConfig, PagesConfig, ShardsConfig
from lm.config import EvaluateConfig, MeshConfig, OptimizerConfig, SampleConfig, TokenizerConfig, TrainConfig

CONTEXT, CHARACTERS = 64, 65


def get_config() -> Experiment:
    return Experiment(
        pages=PagesConfig(tables=("tinyshakespeare.txt",)),
        # No filters: the text is used unchanged.
        documents=dataclasses.replace(
            demo.get_config().documents,
            dump="shakespeare",
            steps=(),
            language=LanguageConfig(languages=("en",), min_score=0.0, letters_only=True),
        ),
        tokenizer=TokenizerConfig(
            vocab_size=CHARACTERS, split_pattern="gpt2", train_characters=10_000_000, algorithm="characters"
        ),
        shards=ShardsConfig(
            record_length=4096,
            token_dtype="uint16",
            train_shards=1,
            validation_fraction=0.1,
            held_out="ends",
        ),
        model=dataclasses.replace(
            gpt2(layers=4, width=128, heads=4),
            vocab_size=CHARACTERS,
            context_length=CONTEXT,
            biases=False,
            compute_dtype="float32",
        ),
        train=TrainConfig(
            steps=2000,
            batch_size=12,
            seed=0,
            optimizer=OptimizerConfig(
                learning_rate=1e-3,
                final_learning_rate=1e-4,
                warmup_steps=100,
                beta1=0.9,
                beta2=0.99,
                epsilon=1e-8,
                weight_decay=0.1,
                clip_norm=1.0,
            ),
            validate_every=500,
            validation_batches=20,
            sample_every=500,
            sample_prompt="ROMEO:",
            sample_tokens=CONTEXT,
            checkpoint_every=1000,
            checkpoints_kept=1,
            log_every=20,
            mesh=MeshConfig(),
            loss_chunks=1,
            loader_threads=1,
        ),
        evaluate=EvaluateConfig(stride=CONTEXT, batch_size=96),
        sample=SampleConfig(prompts=("ROMEO:", "KING "), temperatures=(0.5, 0.9), tokens=CONTEXT, seed=0),
    )
