"""The demo's assistant: finetune runs/demo on questions about its own pages.

    make chat        or        python -m launch.finetune runs/demo configs/assistant.py

The conversations look things up in the corpus of the run, so that the model need not know what it answers, only how to
find and copy it (configs/recipes/page_questions.py).
"""

import dataclasses

from configs.experiment import Experiment
from lm.config import ChatConfig, MuonConfig, OptimizerConfig


def get_config(base: Experiment) -> Experiment:
    train = dataclasses.replace(
        base.train,
        steps=3_100,
        batch_size=8,
        optimizer=OptimizerConfig(
            # For the embeddings. If rows of rare tokens change much, the model no longer recognizes these tokens: at
            # .01, half of the rate of pretraining, it copied with many more errors.
            learning_rate=0.0005,
            final_learning_rate=0.0,
            warmup_steps=20,
            beta1=0.9,
            beta2=0.99,
            epsilon=1e-8,
            weight_decay=0.0,
            clip_norm=1.0,
            schedule="linear",
            muon=MuonConfig(learning_rate=0.02, momentum=0.95, newton_schulz_steps=5),
        ),
        validate_every=775,
        sample_every=0,
        loss_chunks=32,
        skip_untrained=True,
        checkpoint_every=1_550,
        snapshot_steps=(),
    )
    chat = ChatConfig(
        written_by="page_questions",
        questions=("What is an astronaut?", "Where is Mongolia?", "What is 365 times 24?", "What is a glimmerfoss?"),
    )
    return dataclasses.replace(base, train=train, chat=chat)
