"""What the trained model makes of the followed page: the one part of the report that needs jax."""

from collections.abc import Sequence

import numpy as np

from configs.experiment.run_folder import Loaded
from lm.evaluation.token_view import TokenView, view_tokens
from lm.parallel import traced_on

ALTERNATIVES = 5
"""Next tokens that are shown for each one that came."""


def view_page(run: Loaded, ids: Sequence[int]) -> TokenView:
    """What the model makes of `ids`, in evaluation's windows."""
    view, stride = traced_on(run.mesh, view_tokens), run.experiment.evaluate.stride
    return view(run.model, run.experiment.model, np.array(ids), stride, ALTERNATIVES, run.tokenizer.vocab_size)
