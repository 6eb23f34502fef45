"""Llama 3 70B with a context of 131,072 tokens: the last stage of Llama 3.1's pretraining, from a checkpoint of 70B.

    python -m launch.pretrain configs/llama3_70b_128k.py --train.start.checkpoint runs/llama3_70b/checkpoints/3576279

The number of tokens is that of Llama 3.1 405B's long-context training, in one stage instead of six (arXiv:2407.21783,
section 3.4.2, which does not report 70B); batch size and learning rate are guesses. Web pages are short: use longer
texts (--pages.tables), or most sequences consist of many documents, which do not attend to one another.
"""

import dataclasses

from configs.experiment import Experiment
from configs.fineweb import on_fineweb
from configs.recipes.families import LLAMA31_SCALING, llama3


def get_config() -> Experiment:
    model = llama3(layers=80, width=8192, heads=64, mlp_width=28_672)
    model = dataclasses.replace(model, context_length=131_072, rope_scaling=LLAMA31_SCALING)
    return on_fineweb(
        model,
        "llama3",
        tokens=800e9,
        batch_tokens=2**22,
        learning_rate=1e-5,
        warmup_steps=1000,
        final_share=0.01,
        layout="llama3_70b_128k",
    )
