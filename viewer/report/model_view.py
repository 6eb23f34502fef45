"""What the trained model makes of the followed page: the one part of the report that needs jax."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder
from lm.evaluation.token_view import TokenView, view_tokens
from lm.parallel import traced_on

ALTERNATIVES = 5
"""Next tokens that are shown for each one that came."""


def view_page(experiment: Experiment, workdir: Path, ids: Sequence[int], symbols: int) -> TokenView:
    """What the newest checkpoint makes of `ids`, in evaluation's windows. Raises as RunFolder.load."""
    run = RunFolder(workdir).load(experiment=experiment)
    view = traced_on(run.mesh, view_tokens)
    return view(run.model, experiment.model, np.array(ids), experiment.evaluate.stride, ALTERNATIVES, symbols)
