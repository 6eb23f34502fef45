"""A model of GPT-2 small's size by what has been found to pay since, on the tokens of gpt2_124m.py.

    python -m launch.pretrain configs/modern_124m.py --pages.tables 'fineweb/*.parquet' --documents.steps

What differs from GPT-2, each a field with its source in its description: rotary positions, RMSNorm, no biases, squared
ReLU, queries and keys that are normed, heads of 128 channels, residual projections that start at zero, softly capped
logits; Muon for the linear maps, its rate and the falling in a line to zero as in the speed runs of GPT-2's training
(KellerJordan/modded-nanogpt, at batches of as many tokens). The rate of the embeddings is a guess: nothing was trained
at this size yet. What the recipe is worth on small models stands in docs/modern_recipe.md.
"""

import dataclasses

from configs.experiment import Experiment
from configs.fineweb import on_fineweb
from configs.layouts import first_layout
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
        layout=first_layout("modern_124m"),
    )
    optimizer = dataclasses.replace(
        experiment.train.optimizer,
        schedule="linear",
        muon=MuonConfig(learning_rate=0.02, momentum=0.95, newton_schulz_steps=5),
    )
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, optimizer=optimizer))
