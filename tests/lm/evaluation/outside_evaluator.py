"""Evaluators in a user's own package."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lm.evaluation.evaluator import EvaluatorConfig
from lm.model.transformer import Transformer


class Failing:
    def __init__(self, config: EvaluatorConfig):
        pass

    def run(self, model: Transformer, mesh: Mesh) -> dict[str, float]:
        raise ZeroDivisionError("a defect of the user's own")


class LargestParameter:
    """Return the largest absolute value of a parameter, and the batch size of the config."""

    def __init__(self, config: EvaluatorConfig):
        self.config = config

    def run(self, model: Transformer, mesh: Mesh) -> dict[str, float]:
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(model)]))
        return {"largest_parameter": float(largest), "rows_at_once": self.config.batch_size}
