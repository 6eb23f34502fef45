"""The shape of Llama 3.2 1B, 1,235,814,400 parameters, on 100 billion tokens.

    python -m launch.pretrain configs/llama3_1b.py --pages.tables 'fineweb/*.parquet' --documents.steps

The published model was pruned from 8B and distilled; this one is trained from scratch, with the settings of 8B. The
published context was extended to 131,072 with a different rope_scaling (factor 32).
"""

from configs.experiment import Experiment
from configs.fineweb import on_fineweb
from configs.recipes.families import llama3


def get_config() -> Experiment:
    return on_fineweb(
        llama3(layers=16, width=2048, heads=32, mlp_width=8192, tie_embeddings=True),
        "llama3",
        tokens=100e9,
        batch_tokens=2**22,
        learning_rate=3e-4,
        warmup_steps=2000,
        final_share=0.01,
        layout="llama3_1b",
    )
