"""Character-level Shakespeare as in shakespeare_char.py, with the same number of steps, by a modern recipe.

    python -m launch.pretrain configs/shakespeare_char_modern.py --pages.tables tinyshakespeare.txt

Expect a loss of 1.54 nats per character; the classic recipe ends at 1.90 (docs/modern_recipe.md).
"""

import dataclasses

from configs import shakespeare_char
from configs.experiment import Experiment
from configs.recipes.families import modern
from lm.config import MuonConfig


def get_config() -> Experiment:
    classic = shakespeare_char.get_config()
    model = dataclasses.replace(modern(classic.model), token_shift=True, logit_softcap=None, initial_std=0.08)
    optimizer = dataclasses.replace(
        classic.train.optimizer,
        learning_rate=5e-3,  # for the embedding, the scales and the shares of the token shift
        final_learning_rate=0.0,
        warmup_steps=20,
        schedule="linear",
        muon=MuonConfig(learning_rate=0.02, momentum=0.95, newton_schulz_steps=5),
    )
    train = dataclasses.replace(classic.train, optimizer=optimizer)
    return dataclasses.replace(classic, model=model, train=train)
