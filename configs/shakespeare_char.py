"""Shakespeare's plays, letter by letter: the classic small experiment on a CPU, 0.80 M parameters.

    python -m launch.pretrain configs/shakespeare_char.py --pages.tables tinyshakespeare.txt

The text (char-rnn's, 1.1 MB, 65 characters) is not fetched: name where it lies. Model, optimizer and the 2,000 steps of
12 x 64 characters are those of nanoGPT's CPU setting, which ends at a loss of 1.88 nats a character on the last tenth
of the text; expect the same here (docs/benchmarks.md), in a minute on two cores. `shakespeare_char_modern.py` shows how
much lower the same characters can bring it.
"""

from configs import fineweb_recipe as recipe
from configs.experiment import Experiment
from data_prep.config import DocumentsConfig, LanguageConfig, PagesConfig, ShardsConfig
from lm.config import (
    EvaluateConfig,
    MeshConfig,
    OptimizerConfig,
    SampleConfig,
    TokenizerConfig,
    TrainConfig,
)
from lm.model.config import ModelConfig

CONTEXT = 64


def get_config() -> Experiment:
    return Experiment(
        pages=PagesConfig(
            warc=(), packages=(), pages_per_file=50, unpacked_limit=500_000_000, tables=("tinyshakespeare.txt",)
        ),
        documents=DocumentsConfig(
            dump="shakespeare",
            steps=(),
            url_filter=recipe.URL_FILTER_WITHOUT_LISTS,
            extract=recipe.EXTRACT,
            language=LanguageConfig(languages=("en",), min_score=0.0, letters_only=True),
            gopher_repetition=recipe.GOPHER_REPETITION,
            gopher_quality=recipe.GOPHER_QUALITY,
            c4=recipe.C4,
            fineweb=recipe.FINEWEB,
            model_quality=recipe.MODEL_QUALITY,
            minhash=recipe.MINHASH,
            personal_data=recipe.PERSONAL_DATA,
            workers=1,
        ),
        tokenizer=TokenizerConfig(
            vocabulary_size=65, split_pattern="gpt2", train_characters=10_000_000, algorithm="characters"
        ),
        shards=ShardsConfig(
            record_length=4096,
            token_dtype="uint16",
            train_shards=1,
            validation_fraction=0.1,
            workers=1,
            held_out="ends",
        ),
        model=ModelConfig(
            vocabulary_size=65,
            context_length=CONTEXT,
            layers=4,
            width=128,
            heads=4,
            kv_heads=4,
            mlp_width=512,
            norm="layernorm",
            position="learned",
            mlp="gelu",
            biases=False,
            tie_embeddings=True,
            rope_theta=10_000.0,
            norm_epsilon=1e-5,
            initial_std=0.02,
            parameter_dtype="float32",
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
            loss_parts=1,
            loader_threads=1,
        ),
        evaluate=EvaluateConfig(stride=CONTEXT, batch_size=96),
        sample=SampleConfig(prompts=("ROMEO:", "KING "), temperatures=(0.5, 0.9), tokens=CONTEXT, seed=0),
    )
