"""Llama 3 405B, 405,853,388,800 parameters, on 15.6 trillion tokens.

    python -m launch.pretrain configs/llama3_405b.py --pages.tables 'fineweb/*.parquet' --documents.steps

Learning rate and decay are those of the paper (arXiv:2407.21783, table 3 and section 3.4.1). Its batch size grew from
4 million tokens, in sequences of 4,096, to 8 million after 252 million tokens and 16 million after 2.87 trillion. Here
all batches have 16 million tokens; for the paper's schedule use

    --train.layout h100:1024 --train.steps 1100928 --train.batch-size 512 --train.batch-schedule 60 1024 342161 2048
    --train.context-schedule 0 4096 60 8192

The first batches then have 1,024 sequences, too few for the 2,048 devices along fsdp of the row v5p:16x16x16.
"""

from configs.experiment import Experiment
from configs.fineweb import on_fineweb
from configs.recipes.families import llama3


def get_config() -> Experiment:
    return on_fineweb(
        llama3(layers=126, width=16_384, heads=128, mlp_width=53_248),
        "llama3",
        tokens=15.6e12,
        batch_tokens=2**24,
        learning_rate=8e-5,
        warmup_steps=8000,
        final_share=0.01,
        layout="llama3_405b",
    )
