"""Log-likelihoods of continuations given their contexts, which all benchmarks without generation need, and of whole
documents, in windows.

Axes: B rows, T positions, K scored tokens of a row.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from lm.config import ModelConfig
from lm.evaluation.evaluator import EvaluationInterrupted
from lm.evaluation.packing import Layout, PackedBatch, Row, fill, lay_out, trees_of
from lm.model.attention.mask import AttentionMask
from lm.model.loss import token_scores
from lm.model.transformer import Transformer, reads_by_attention
from lm.parallel import constrain, devices_of, on_host, shard_batch, traced_on
from lm.tokenizer import Tokenizer

TOKENS_AT_ONCE = {"cpu": 1 << 12}
"""{platform: positions per batch and device}; larger batches are not faster. OTHERWISE is for other platforms."""
OTHERWISE = 1 << 15


class Request(NamedTuple):
    """Continuation to score, and the context before it, as token ids."""

    context: Sequence[int]
    """Ids that are not scored; at least one, for example BOS."""
    continuation: Sequence[int]
    """Ids to score."""


class Score(NamedTuple):
    """Log-likelihood of a continuation given its context."""

    log_likelihood: float
    """log p of all its tokens, in nats."""
    greedy: bool
    """Whether every token is the most likely one: the continuation that temperature 0 generates."""


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str, add_bos_token: bool | None = None) -> Request:
    """Encode `context` + `continuation` as one text. The first n tokens become the context, the others the
    continuation, which gets at least one. n is the number of tokens of `context` without trailing white space. These
    are lm-eval's rules (lm_eval.api.model.TemplateLM), so scores are equal.

    The context begins with BOS if `add_bos_token` is set (None: tokenizer.add_bos) or if it has no tokens.
    """
    add_bos_token = tokenizer.add_bos if add_bos_token is None else add_bos_token
    if not context:
        return Request([tokenizer.bos_id], tokenizer.encode(continuation))
    whole, before = tokenizer.encode(context + continuation), tokenizer.encode(context.rstrip())
    cut = max(0, min(len(before), len(whole) - 1))
    head = [tokenizer.bos_id] if add_bos_token or not cut else []
    return Request([*head, *whole[:cut]], whole[cut:])


def windows_of(number: int, request: Request, context_length: int) -> Iterator[Row]:
    """Yield the rows that score each token of a continuation once; `number` is the index of the request. Usually there
    is one row, and a context that is too long is truncated at its start. A long continuation is split into parts of
    context_length tokens; the row of the last, shorter part is filled up with earlier tokens as context (lm-eval's
    rolling windows). Raises ValueError for an empty context."""
    if not request.context:
        raise ValueError("a continuation without a context: give at least BOS")
    whole = [*request.context, *request.continuation]
    for start in range(len(request.context), len(whole), context_length):
        end = min(start + context_length, len(whole))
        yield Row(number, whole[max(0, end - context_length - 1) : end], end - start)


def scored_tokens(
    model: Transformer, batch: PackedBatch, branched: bool
) -> tuple[Float[Array, "B K"], Bool[Array, "B K"]]:
    """Return (log p of each scored token in nats, whether it is the most likely token), replicated on all devices.
    Logits are computed only for scored tokens. `branched`: several continuations share a context (see `fill`)."""
    mask = AttentionMask(batch.segment_ids_BT, branched=branched)
    x_BTD, _ = model(batch.tokens_BT, batch.positions_BT, mask)
    x_BKD = jnp.take_along_axis(x_BTD, batch.at_BK[..., None], axis=1)
    losses_BK, greedy_BK = token_scores(x_BKD, model.output_table(), batch.targets_BK, model.logit_softcap)
    return constrain(-losses_BK, None), constrain(greedy_BK, None)


class LogLikelihoods:
    """Computes log-likelihoods of continuations, packing several requests into a row. Compiles once per batch shape."""

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        show: Callable[[str], None] = lambda text: None,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        """At most `batch_size` rows of the full context length are computed at once. `show` and `should_stop` are as in
        EvaluatorConfig."""
        self.config, self.batch_size, self.show, self.should_stop = config, batch_size, show, should_stop
        self.compiled = jax.jit(scored_tokens, static_argnums=2)

    def branches(self, mesh: Mesh) -> bool:
        """Return whether continuations of the same context can share its computation. They cannot if the model reads
        neighbors in the row (n-grams, attention windows, a block that keeps more than keys and values, or does not say
        what it keeps), or if positions are sharded over devices."""
        windows = any(self.config.attention_windows)
        return not windows and reads_by_attention(self.config) and devices_of("length", mesh) == 1

    def lay_out(self, mesh: Mesh, requests: Sequence[Request]) -> list[Layout]:
        """Pack the requests into batches of few shapes. Raises ValueError for a request without a context."""
        context, rows = self.config.context_length, devices_of("batch", mesh)
        of_device = TOKENS_AT_ONCE.get(mesh.devices.flat[0].platform, OTHERWISE)
        windows = itertools.chain.from_iterable(windows_of(n, one, context) for n, one in enumerate(requests))
        trees = trees_of(windows, context, self.branches(mesh))
        at_once = min(rows * of_device, self.batch_size * context)
        return lay_out(trees, context, at_once, rows, devices_of("length", mesh))

    def score(self, model: Transformer, mesh: Mesh, requests: Sequence[Request]) -> list[Score]:
        """Return the scores, in order. `model` is sharded over `mesh`; all processes must make the same call. Raises
        ValueError for a request without a context, EvaluationInterrupted if it was stopped."""
        nats, greedy = np.zeros(len(requests)), np.ones(len(requests), bool)
        score_batch, branched = traced_on(mesh, self.compiled), self.branches(mesh)
        layouts = self.lay_out(mesh, requests)
        batches = [(one.shape, list(part)) for one in layouts for part in itertools.batched(one.rows, one.shape[0])]
        waiting: list[tuple[np.ndarray, tuple[jax.Array, jax.Array]]] = []
        for done, (shape, rows) in enumerate(batches, 1):
            if self.should_stop():
                raise EvaluationInterrupted
            batch, requests_BK = fill(rows, shape, branched)
            waiting.append((requests_BK, score_batch(model, shard_batch(batch, mesh, shape[0]), branched)))
            while len(waiting) > (done < len(batches)):  # compute one batch while reading the previous one
                requests_BK, found = waiting.pop(0)
                nats_BK, greedy_BK = map(on_host, found)
                used_BK = requests_BK >= 0
                np.add.at(nats, requests_BK[used_BK], nats_BK[used_BK].astype(float))
                np.logical_and.at(greedy, requests_BK[used_BK], greedy_BK[used_BK])
            self.show(f"{done:,} of {len(batches):,} batches")
        return [Score(*one) for one in zip(nats.tolist(), greedy.tolist(), strict=True)]
