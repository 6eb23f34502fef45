"""GPT-2 medium, 354,823,168 parameters, on 10 billion tokens.

    python -m launch.pretrain configs/gpt2_355m.py --pages.tables 'fineweb/*.parquet' --documents.steps

Peak learning rate and batch size are those of GPT-3's model of this size (arXiv:2005.14165, table 2.1); OpenAI did not
publish those of GPT-2.
"""

from configs.experiment import Experiment
from configs.fineweb import on_fineweb
from configs.recipes.families import gpt2


def get_config() -> Experiment:
    return on_fineweb(
        gpt2(layers=24, width=1024, heads=16),
        "gpt2",
        tokens=10e9,
        batch_tokens=2**19,
        learning_rate=3e-4,
        warmup_steps=700,
        layout="gpt2_355m",
    )
