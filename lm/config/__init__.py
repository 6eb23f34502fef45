"""Configuration of lm as frozen dataclasses, one file per subject. No JAX here, so that configs load quickly.

Fields marked `not_hashed` affect how fast or how often something is computed, not the result; they are excluded from
the hash that identifies a run's result.

May import: lm.errors, lm.fields.
"""

from lm.config.chat import ChatConfig
from lm.config.evaluation import EvaluateConfig, SampleConfig, TasksConfig
from lm.config.model import ModelConfig, RopeScalingConfig
from lm.config.optimizer import MuonConfig, OptimizerConfig
from lm.config.reinforce import ReinforceConfig
from lm.config.remat import REMAT, RematPolicy
from lm.config.stages import Stage, Stages
from lm.config.tokenizer import END_OF_TEXT, TokenizerConfig
from lm.config.training import (
    LoraConfig,
    MeshConfig,
    MixtureSource,
    MixtureStage,
    SpikeConfig,
    StartConfig,
    TrainConfig,
)
