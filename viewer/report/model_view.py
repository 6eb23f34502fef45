"""What the trained model makes of the followed page: the one part of the report that needs jax."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.experiment import Experiment
from lm.checkpoints.reading import restore_model
from lm.evaluation.token_view import TokenView, view_tokens

ALTERNATIVES = 5
"""Next tokens that are shown for each one that came."""


def view_page(experiment: Experiment, workdir: Path, ids: Sequence[int], symbols: int) -> TokenView:
    """What the newest checkpoint makes of `ids`, in evaluation's windows. Raises InputError as `restore_model`."""
    model = restore_model(experiment.model, workdir / "checkpoints")
    return view_tokens(model, experiment.model, np.array(ids), experiment.evaluate.stride, ALTERNATIVES, symbols)
