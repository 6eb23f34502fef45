"""Log-likelihoods of continuations given their contexts, what every benchmark without generation is made of; and of
whole documents, in windows.

Axes: B rows, T positions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from lm.config import ModelConfig
from lm.data.batches import Batch, host_batch
from lm.evaluation.evaluator import EvaluationInterrupted
from lm.evaluation.held_out import rows_on
from lm.model.loss import token_scores
from lm.model.transformer import Transformer
from lm.parallel import constrain, devices_of, forward_only, on_host, place, traced_on
from lm.tokenizer import Tokenizer

SHORTEST = 32
"""Positions of a batch at least: with fewer, more programs are compiled than time is saved."""


class Request(NamedTuple):
    """What is scored."""

    context: Sequence[int]
    """Ids that are only read, one at least: the document's head (bos_id) where there is no other."""
    continuation: Sequence[int]
    """Ids whose probabilities are taken."""


class Score(NamedTuple):
    """Of a continuation."""

    log_likelihood: float
    """log p of all its tokens, in nats."""
    greedy: bool
    """Whether none of its tokens had a likelier one in its place: the continuation that temperature 0 would draw."""


class Row(NamedTuple):
    """A window, and whose it is."""

    request: int
    tokens: Sequence[int]
    """At most one more than the model's context."""
    scored: int
    """How many of the last tokens count."""


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str, add_bos_token: bool = True) -> Request:
    """The ids of both, cut where the context's own ids end; blanks at the context's end go to the continuation, for in
    most vocabularies a word has its blank before it. Both rules are those of lm-eval (lm_eval.api.model.TemplateLM), so
    that scores are the same.

    The document's head stands before a context if `add_bos_token`, and before an empty context in any case. Where the
    last tokens of both would be one, that one is the continuation.
    """
    head = [tokenizer.bos_id]
    if not context:
        return Request(head, tokenizer.encode(continuation))
    words = context.rstrip()
    whole, before = tokenizer.encode(context + continuation), tokenizer.encode(words)
    cut = max(0, min(len(before), len(whole) - 1))
    if add_bos_token or not cut:
        return Request([*head, *whole[:cut]], whole[cut:])
    return Request(whole[:cut], whole[cut:])


def windows_of(number: int, request: Request, context_length: int) -> Iterator[Row]:
    """The rows in which each token of the continuation is scored once. Most often that is one, with the context cut
    from the left where it is too long; a longer continuation is cut into parts of context_length tokens, and the last
    window is as long as the others, as in lm-eval's rolling windows. Raises ValueError for an empty context."""
    if not request.context:
        raise ValueError("a continuation without a context: give the document's head at least")
    whole = [*request.context, *request.continuation]
    for start in range(len(request.context), len(whole), context_length):
        end = min(start + context_length, len(whole))
        yield Row(number, whole[max(0, end - context_length - 1) : end], end - start)


def power_of_two(number: int) -> int:
    """The least that is not below it."""
    return 1 << max(0, number - 1).bit_length()


def shape_of(longest: int, rows: int, config: ModelConfig, batch_size: int, mesh: Mesh) -> tuple[int, int]:
    """(B, T) of the batch whose longest row has so many inputs, where `rows` are left: both powers of two, or what the
    mesh divides, and together at most as many tokens as batch_size rows of the whole context."""
    parts = devices_of("length", mesh)
    length = parts * math.ceil(max(SHORTEST, power_of_two(longest)) / parts)
    length = min(length, config.context_length)
    most = max(1, batch_size * config.context_length // length)
    return rows_on(mesh, min(1 << most.bit_length() - 1, power_of_two(rows))), length


def batch_of(rows: Sequence[Row], shape: tuple[int, int]) -> Batch:
    """The rows from the left, filled up with weight 0."""
    inputs_BT, targets_BT, segments_BT = (np.zeros(shape, np.int32) for _ in range(3))
    weights_BT = np.zeros(shape, np.float32)
    for row, (_, tokens, scored) in enumerate(rows):
        real = len(tokens) - 1
        inputs_BT[row, :real], targets_BT[row, :real] = tokens[:-1], tokens[1:]
        segments_BT[row, :real] = 1
        weights_BT[row, real - scored : real] = 1.0
    return host_batch(inputs_BT, targets_BT, segments_BT, weights_BT)


def row_scores(model: Transformer, batch: Batch) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
    """(log p of the tokens of weight 1 of each row in nats, whether none of them had a likelier one), on every
    device."""
    with forward_only():
        x_BTD = model.read(batch.inputs_BT, batch.segment_ids_BT)
        losses_BT, greedy_BT = token_scores(x_BTD, model.output_table(), batch.targets_BT, model.logit_softcap)
    nats_B = -jnp.sum(losses_BT * batch.weights_BT, axis=-1)
    greedy_B = jnp.all(greedy_BT | (batch.weights_BT == 0), axis=-1)
    return constrain(nats_B, None), constrain(greedy_B, None)


class LogLikelihoods:
    """Scores requests by a model of this config, the longest first, one forward pass a batch; compiled once a shape."""

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        show: Callable[[str], None] = lambda text: None,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        """`batch_size` is how many rows of the whole context may be computed at once; shorter rows are more.
        `show` and `should_stop` are as of EvaluatorConfig."""
        self.config, self.batch_size, self.show, self.should_stop = config, batch_size, show, should_stop
        self.compiled = jax.jit(row_scores)

    def score(self, model: Transformer, mesh: Mesh, requests: Sequence[Request]) -> list[Score]:
        """Of each request, in their order. `model` is on `mesh`; of several processes all must ask, with the same
        requests. Raises ValueError for a request without a context, EvaluationInterrupted when asked to stop."""
        nats, greedy = np.zeros(len(requests)), np.ones(len(requests), bool)
        rows = [row for n, one in enumerate(requests) for row in windows_of(n, one, self.config.context_length)]
        rows.sort(key=lambda row: -len(row.tokens))
        score_rows, waiting, begun = traced_on(mesh, self.compiled), [], 0
        while begun < len(rows) or waiting:
            if self.should_stop():
                raise EvaluationInterrupted
            if begun < len(rows):
                longest, left = len(rows[begun].tokens) - 1, len(rows) - begun
                shape = shape_of(longest, left, self.config, self.batch_size, mesh)
                part = rows[begun : begun + shape[0]]
                waiting.append((part, score_rows(model, place(batch_of(part, shape), mesh, shape[0]))))
                begun += len(part)
            if len(waiting) > 1 or begun == len(rows):  # one batch is computed while the one before is read
                part, found = waiting.pop(0)
                nats_B, greedy_B = map(on_host, found)
                for (number, _, _), row_nats, row_greedy in zip(part, nats_B.tolist(), greedy_B.tolist(), strict=False):
                    nats[number] += row_nats
                    greedy[number] &= row_greedy
                self.show(f"{begun:,} of {len(rows):,} rows")
        return [Score(*one) for one in zip(nats.tolist(), greedy.tolist(), strict=True)]
