"""A model of GPT-2 small's size by a modern recipe, on the same number of tokens as gpt2_124m.py.

    python -m launch.pretrain configs/modern_124m.py --pages.tables 'fineweb/*.parquet' --documents.steps

Differences from GPT-2, each a field with its source in its description: rotary positions, RMSNorm, no biases, squared
ReLU, query-key norm, heads of 128 channels, zero-initialized residual projections, logit softcap; Muon for the linear
maps, with the learning rate and linear decay to zero of the GPT-2 speedrun (KellerJordan/modded-nanogpt, with batches
of the same size). The learning rate of the embeddings is a guess: no model of this size has been trained here.
docs/modern_recipe.md has ablations of the recipe on small models.
"""

import dataclasses

from configs.experiment import Experiment
from configs.fineweb import on_fineweb
from configs.recipes.families import gpt2, modern
from lm.config import MuonConfig


def get_config() -> Experiment:
    experiment = on_fineweb(
        modern(gpt2(layers=12, width=768, heads=6)),
        "gpt2",
        tokens=10e9,
        batch_tokens=2**19,
        learning_rate=3e-3,
        warmup_steps=250,
        final_share=0.0,
        layout="modern_124m",
    )
    optimizer = dataclasses.replace(
        experiment.train.optimizer,
        schedule="linear",
        muon=MuonConfig(learning_rate=0.02, momentum=0.95, newton_schulz_steps=5),
    )
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, optimizer=optimizer))
