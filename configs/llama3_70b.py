"""Llama 3 70B, 70,553,706,496 parameters, on 15 trillion tokens.

    python -m launch.pretrain configs/llama3_70b.py --pages.tables 'fineweb/*.parquet' --documents.steps

Learning rate and decay are those of the Llama 3 paper (arXiv:2407.21783, table 3 and section 3.4.1). It does not report
the batch size of this model: this config uses the initial one of the 405B model, 4 million tokens.
"""

from configs.experiment import Experiment
from configs.fineweb import on_fineweb
from configs.recipes.families import llama3


def get_config() -> Experiment:
    return on_fineweb(
        llama3(layers=80, width=8192, heads=64, mlp_width=28_672),
        "llama3",
        tokens=15e12,
        batch_tokens=2**22,
        learning_rate=1.5e-4,
        warmup_steps=8000,
        final_share=0.01,
        layout="llama3_70b",
    )
