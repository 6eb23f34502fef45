"""Model interface of EleutherAI's lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness), so that
all of its tasks can be run, and `run_harness`, which runs them."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets.exceptions import DatasetsError
from jax.sharding import Mesh
from jinja2 import UndefinedError
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from lm.config import ModelConfig
from lm.errors import InputError, UsageError
from lm.evaluation.harness_tasks import Definitions
from lm.evaluation.log_likelihood import LogLikelihoods, Request, encode_pair
from lm.inference.engine import Engine
from lm.inference.requests import Completion, GenerationRequest, SamplingParams
from lm.model.transformer import Transformer
from lm.tokenizer import Tokenizer

KEPT = ("results", "groups", "n-shot", "n-samples", "versions", "higher_is_better", "configs")
"""Parts of the harness's results that are about tasks; the rest is about the machine."""
BOOTSTRAPS = 1000
"""Samples for standard errors of metrics that are not means; the harness's default of 100,000 takes longer than small
models."""
MOST_NEW_TOKENS = 256
"""Answer length if a task does not set one; the same as in lm-eval's own models."""
DRAWN_BY = ("top_k", "top_p", "min_p")
KNOWN_ARGUMENTS = {"until", "max_gen_toks", "do_sample", "temperature", *DRAWN_BY}


class HarnessLM(LM):
    """Model interface of lm-eval: log-likelihoods of continuations and of documents, and generation."""

    chat = False
    """Whether contexts are conversations (lm/chat/harness.py)."""

    def __init__(
        self,
        model: Transformer,
        config: ModelConfig,
        tokenizer: Tokenizer,
        mesh: Mesh,
        batch_size: int,
        *,
        add_bos_token: bool | None = None,
        show: Callable[[str], None] = lambda text: None,
    ):
        """`model` is sharded over `mesh`; at most `batch_size` rows of the full context length are computed at once. A
        context begins with BOS if `add_bos_token` is set (None: tokenizer.add_bos) or if the context is empty."""
        super().__init__()
        self.model, self.config, self.tokenizer, self.mesh = model, config, tokenizer, mesh
        self.batch_size, self.show = batch_size, show
        self.add_bos_token = tokenizer.add_bos if add_bos_token is None else add_bos_token
        self.log_likelihoods = LogLikelihoods(config, batch_size, show)
        self.engine: Engine | None = None
        """Created when text is first generated."""

    @property
    def tokenizer_name(self) -> str:
        """Tokenizer fingerprint, as part of the keys of lm-eval's request cache."""
        return self.tokenizer.fingerprint

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log p of the continuation in nats, whether greedy decoding gives it) for each (context,
        continuation)."""
        pairs = [self.pair_of(*one.args) for one in requests]
        found = [tuple(one) for one in self.log_likelihoods.score(self.model, self.mesh, pairs)]
        return self.add_to_cache("loglikelihood", requests, found)

    def pair_of(self, context: str, continuation: str) -> Request:
        """Encode a context and its continuation."""
        return encode_pair(self.tokenizer, context, continuation, add_bos_token=self.add_bos_token)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood in nats of all tokens of each text, as a document that begins with BOS."""
        documents = [Request([self.tokenizer.bos_id], self.tokenizer.encode(one.args[0])) for one in requests]
        scores = self.log_likelihoods.score(self.model, self.mesh, documents)
        return self.add_to_cache("loglikelihood_rolling", requests, [one.log_likelihood for one in scores])

    def add_to_cache[Answer](self, question: str, requests: Sequence[Instance], answers: list[Answer]) -> list[Answer]:
        """Add the answers to lm-eval's cache, if any, and return them. `question` is the kind of request."""
        for one, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial(question, one.args, answer)
        return answers

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate a continuation of each context, until one of the strings `until`, the end of the document, or
        max_gen_toks tokens. Sampling parameters (temperature, top_k, top_p, min_p) apply only if do_sample is true. A
        context that leaves too little room is truncated (`encode_context`), to no less than half of the model's context
        length. Raises UsageError for other generation arguments."""
        asked = [self.prompt_of(number, *one.args) for number, one in enumerate(requests)]
        if self.engine is None:
            self.engine = Engine(self.model, self.config, self.tokenizer, slots=self.batch_size, mesh=self.mesh)
        found = self.engine.complete(asked)
        texts = [self.text_of(*one.args, made) for one, made in zip(requests, found, strict=True)]
        return self.add_to_cache("generate_until", requests, texts)

    def text_of(self, context: str, arguments: Mapping[str, Any], completion: Completion) -> str:
        """Return the generated text, as the task expects it."""
        return completion.text

    def encode_context(self, context: str, most: int) -> list[int]:
        """Return the last `most` ids of the context."""
        ids = self.tokenizer.encode(context)
        head = [self.tokenizer.bos_id] if self.add_bos_token or not ids else []
        return [*head, *ids][-most:]

    def prompt_of(self, number: int, context: str, arguments: Mapping[str, Any]) -> GenerationRequest:
        """Convert lm-eval's (context, arguments) to a request for the engine, with `number` as seed. Raises UsageError
        for arguments that are not supported."""
        if unknown := sorted(arguments.keys() - KNOWN_ARGUMENTS):
            raise UsageError(
                f"The task asks for generation with {', '.join(f'{one} = {arguments[one]!r}' for one in unknown)}, but "
                f"only {', '.join(sorted(KNOWN_ARGUMENTS))} are supported. Choose another task, or change its "
                "generation_kwargs."
            )
        wanted, room = int(arguments.get("max_gen_toks", MOST_NEW_TOKENS)), self.config.context_length
        ids = self.encode_context(context, max(room - wanted, room // 2))
        drawn_by: dict[str, Any] = {"temperature": 0.0}
        if arguments.get("do_sample", False):
            drawn_by = {name: arguments[name] for name in DRAWN_BY if name in arguments}
            drawn_by["temperature"] = float(arguments.get("temperature", 1.0))
        most = min(wanted, room - len(ids))
        return GenerationRequest(
            tuple(ids), SamplingParams(max_tokens=most, stop=stops_of(arguments), seed=number, **drawn_by)
        )


def stops_of(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    until = arguments.get("until") or []
    return (until,) if isinstance(until, str) else tuple(one for one in until if one)


def run_harness(
    model: HarnessLM, tasks: Sequence[str], few_shot: int | None = None, limit: int = 0, include_path: str = "",
    data: str = "", run_code: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Run tasks of lm-eval. Return {part: {task: values}} for the parts in KEPT and "chat", whether the prompts were
    conversations: ["results"]["piqa"] has the metrics of piqa. `few_shot` is the number of solved examples before each
    question (None: the task's default), `limit` the maximum number of examples per task (0: all). `include_path` is a
    folder with your own tasks, `data` a folder with datasets (`with_data`); both may be "". `run_code` allows HumanEval
    to run programs of the model. Raises UsageError for unknown tasks, InputError if a data set cannot be loaded."""
    # Otherwise it forks for standard errors, which can deadlock because JAX's threads may hold locks.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    from lm_eval.evaluator import simple_evaluate

    manager = TaskManager(include_path=include_path or None)
    manager._factory = Definitions(data, few_shot, run_code)
    if unknown := [name for name in tasks if not manager.match_tasks([name])]:
        near = [name for name in manager.all_tasks if unknown[0].lower() in name.lower()][:5]
        raise UsageError(
            f"--tasks names {unknown[0]!r}, which lm-eval does not know"
            f"{f'; it has {", ".join(near)}' if near else ''}. `lm_eval ls tasks` lists all; --include-path adds yours."
        )
    try:
        found = simple_evaluate(
            model=model, tasks=manager.match_tasks(list(tasks)), num_fewshot=few_shot, limit=limit or None,
            task_manager=manager, log_samples=False, bootstrap_iters=BOOTSTRAPS,
            apply_chat_template=model.chat,
        )  # fmt: skip
    except (OSError, ConnectionError, DatasetsError, UndefinedError) as error:
        raise InputError(
            f"A data set of {', '.join(tasks)} cannot be loaded: {error}. Check the network, or put the data set, with "
            "the hub's columns, into a folder and give the folder as --data."
        ) from error
    except ModuleNotFoundError as error:
        raise UsageError(
            f"A task of {', '.join(tasks)} needs a package that is not installed: {error}. Packages of tasks are "
            "extras of lm-eval; for ifeval: make add PACKAGE='lm-eval[ifeval]'."
        ) from error
    assert found is not None  # None only in distributed runs of the harness itself
    kept = {name: json.loads(json.dumps(found.get(name) or {}, default=str)) for name in KEPT}
    return {**kept, "chat": dict.fromkeys(kept["results"], model.chat)}
