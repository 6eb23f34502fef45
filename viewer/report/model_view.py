"""The model's predictions on the followed page: the only part of the report that needs JAX."""

from collections.abc import Sequence

import numpy as np

from configs.experiment.run_folder import Loaded
from lm.evaluation.token_view import TokenView, view_tokens
from lm.parallel import traced_on

ALTERNATIVES = 5
"""Number of most likely tokens to show at each position."""


def view_page(run: Loaded, ids: Sequence[int]) -> TokenView:
    """Evaluate the model on `ids`, with the evaluation's windows."""
    view, stride = traced_on(run.mesh, view_tokens), run.experiment.evaluate.stride
    return view(run.model, run.experiment.model, np.array(ids), stride, ALTERNATIVES, run.tokenizer.vocab_size)
