"""Model interface of EleutherAI's lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness), so that
all of its tasks can be run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from lm.config import ModelConfig
from lm.errors import UsageError
from lm.evaluation.log_likelihood import LogLikelihoods, Request, encode_pair
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.model.transformer import Transformer
from lm.tokenizer import Tokenizer

MOST_NEW_TOKENS = 256
"""Answer length if a task does not set one; the same as in lm-eval's own models."""
DRAWN_BY = ("top_k", "top_p", "min_p")
KNOWN_ARGUMENTS = {"until", "max_gen_toks", "do_sample", "temperature", *DRAWN_BY}


class HarnessLM(LM):
    """Implements the three requests of the harness: log-likelihoods of continuations, of documents, and generation."""

    def __init__(
        self,
        model: Transformer,
        config: ModelConfig,
        tokenizer: Tokenizer,
        mesh: Mesh,
        batch_size: int,
        add_bos_token: bool | None = None,
        show: Callable[[str], None] = lambda text: None,
    ):
        """`model` is on `mesh`; at most `batch_size` rows of the whole context are computed at once. Each context
        begins with bos_id if `add_bos_token` (by default if the tokenizer's prompts have it), and an empty one always
        does."""
        super().__init__()
        self.model, self.config, self.tokenizer, self.mesh = model, config, tokenizer, mesh
        self.batch_size, self.show = batch_size, show
        self.add_bos_token = tokenizer.add_bos if add_bos_token is None else add_bos_token
        self.log_likelihoods = LogLikelihoods(config, batch_size, show)
        self.engine: Engine | None = None
        """Created when text is first generated."""

    @property
    def tokenizer_name(self) -> str:
        """Key of the request caches of the harness."""
        return self.tokenizer.fingerprint

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log p of the continuation in nats, whether it is the greedy continuation) for each (context,
        continuation)."""
        pairs = [encode_pair(self.tokenizer, *one.args, add_bos_token=self.add_bos_token) for one in requests]
        found = [tuple(one) for one in self.log_likelihoods.score(self.model, self.mesh, pairs)]
        return self.noted("loglikelihood", requests, found)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return log p of each text in nats, as a document: each token once, after the document head."""
        documents = [Request([self.tokenizer.bos_id], self.tokenizer.encode(one.args[0])) for one in requests]
        scores = self.log_likelihoods.score(self.model, self.mesh, documents)
        return self.noted("loglikelihood_rolling", requests, [one.log_likelihood for one in scores])

    def noted[Answer](self, question: str, requests: Sequence[Instance], answers: list[Answer]) -> list[Answer]:
        """Return the answers, after adding them to the harness's cache, if any."""
        for one, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial(question, one.args, answer)
        return answers

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate a continuation of each context, up to the first of the strings `until`, the end of the document, or
        max_gen_toks tokens. `temperature`, `top_k`, `top_p` and `min_p` are used if do_sample is true. If context and
        answer do not fit, the context is truncated from the left, to no less than half of the model's context.

        Raises UsageError for other generation arguments.
        """
        asked = [self.prompt_of(number, *one.args) for number, one in enumerate(requests)]
        if self.engine is None:
            self.engine = Engine(self.model, self.config, self.tokenizer, slots=self.batch_size, mesh=self.mesh)
        texts = [one.text for one in self.engine.complete(asked)]
        return self.noted("generate_until", requests, texts)

    def prompt_of(self, number: int, context: str, arguments: Mapping[str, Any]) -> GenerationRequest:
        """Return the request for the engine; `number` is the seed."""
        if unknown := sorted(arguments.keys() - KNOWN_ARGUMENTS):
            raise UsageError(
                f"The task asks for generation with {', '.join(f'{one} = {arguments[one]!r}' for one in unknown)}, but "
                f"only {', '.join(sorted(KNOWN_ARGUMENTS))} are supported. Choose another task, or change its "
                "generation_kwargs."
            )
        until = arguments.get("until") or []
        stops = [until] if isinstance(until, str) else [one for one in until if one]
        wanted = int(arguments.get("max_gen_toks", MOST_NEW_TOKENS))
        ids, room = self.tokenizer.encode(context), self.config.context_length
        head = [self.tokenizer.bos_id] if self.add_bos_token or not ids else []
        ids = [*head, *ids][-max(room - wanted, room // 2) :]
        params = SamplingParams(
            max_tokens=min(wanted, room - len(ids)), temperature=0.0, stop=tuple(stops), seed=number
        )
        if arguments.get("do_sample", False):
            params = dataclasses.replace(params, temperature=float(arguments.get("temperature", 1.0)))
            drawn_by = {name: arguments[name] for name in DRAWN_BY if name in arguments}
            params = dataclasses.replace(params, **drawn_by)
        return GenerationRequest(tuple(ids), params)
