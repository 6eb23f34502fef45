"""GPT-2 XL, 1,557,611,200 parameters, on 32 billion tokens.

    python -m launch.pretrain configs/gpt2_1558m.py --pages.tables 'fineweb/*.parquet' --documents.steps

Peak learning rate and batch size are those of GPT-3's model of this size (arXiv:2005.14165, table 2.1); OpenAI did not
publish those of GPT-2.
"""

from configs.experiment import Experiment
from configs.fineweb import on_fineweb
from configs.recipes.families import gpt2


def get_config() -> Experiment:
    return on_fineweb(
        gpt2(layers=48, width=1600, heads=25),
        "gpt2",
        tokens=32e9,
        batch_tokens=2**20,
        learning_rate=2e-4,
        warmup_steps=700,
        layout="gpt2_1558m",
    )
