"""The batches of reinforcement learning: answers sampled from the model that is trained, with their rewards.

Answers are sampled with exact log-probabilities. So the ratio of the new to the old policy is 1, and the clipping of
PPO and GRPO would have no effect. A batch depends only on its step, the config and the state before it, so a run that
was killed resumes with the same bits.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.sharding import Mesh

from lm.chat.assistant import MOST_ROUNDS, Answer, generate_answers
from lm.chat.template import ChatTemplate
from lm.checkpoints.manifest import DamageError, folders_of, read_manifest, steps_in
from lm.config import ModelConfig, ReinforceConfig, TrainConfig
from lm.data.batches import Batches
from lm.errors import InputError, UsageError, for_terminal, shown
from lm.evaluation.evaluator import Evaluator, EvaluatorConfig
from lm.evaluation.evaluators import make_evaluators
from lm.fields import identifying
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams, TokenLogprob
from lm.model.transformer import Transformer, abstract_model
from lm.parallel import training_mesh
from lm.reinforcement.scoring import FIGURES, AnswerBatch, objective_and_gradients
from lm.reinforcement.tasks import Instance, Task, instance_at
from lm.resilience.preemption import PreemptionHandler
from lm.run_paths import RunPaths
from lm.tokenizer import Tokenizer, load
from lm.training.setup import Data, Say
from lm.training.state import TrainState
from lm.training.step import Metrics

UNREWARDED = 10
"""Steps in a row without a reward after which a warning is printed."""


type Reply = tuple[GenerationRequest, list[TokenLogprob]]
"""A sampled reply of the assistant: the request, and the tokens drawn, including the end token."""


class SampledAnswer(NamedTuple):
    """A sampled answer: one reply, and another after each round of calls."""

    replies: list[Reply]
    reward: float
    """0 if the answer was cut."""

    @property
    def figures(self) -> tuple[float, bool, int]:
        """Its FIGURES."""
        return self.reward, self.reward == 1, sum(len(drawn) for _, drawn in self.replies)


def token_weights(rewards: np.ndarray, lengths: np.ndarray, config: ReinforceConfig) -> np.ndarray:
    """Return the weight of each answer's tokens in the objective, a mean over all answers: its advantage
    (ReinforceConfig.algorithm), divided by its length for grpo, else by max_tokens. `rewards` and `lengths` in tokens
    are (questions, answers). The weight is 0 if all answers to a question have the same reward."""
    answers = rewards.shape[1]
    advantages = rewards - rewards.mean(axis=1, keepdims=True)
    advantages[np.ptp(rewards, axis=1) == 0] = 0.0  # the mean can be rounded
    if config.algorithm == "grpo":
        return advantages / (rewards.std(axis=1, keepdims=True) + 1e-6) / lengths / rewards.size
    return advantages * answers / (answers - 1) / config.max_tokens / rewards.size


def answer_batch(rows: int, config: ReinforceConfig, replies: Sequence[tuple[Reply, float]] = ()) -> AnswerBatch:
    """Return a batch of `rows` replies: (reply, weight of its tokens), those with a weight first, then empty rows."""
    prompts_RT, lengths_R1 = np.zeros((rows, config.context), np.int32), np.ones((rows, 1), np.int32)
    tokens_RN, weights_RN = (np.zeros((rows, config.max_tokens), dtype) for dtype in (np.int32, np.float32))
    logprobs_RN, figures_RF = weights_RN.copy(), np.full((rows, len(FIGURES)), np.nan, np.float32)
    for row, ((request, drawn), weight) in enumerate(sorted(replies, key=lambda pair: pair[1] == 0)):
        lengths_R1[row], count = len(request.prompt), len(drawn)
        prompts_RT[row, : len(request.prompt)], weights_RN[row, :count] = request.prompt, weight
        tokens_RN[row, :count], logprobs_RN[row, :count] = zip(
            *((one.token, one.logprob) for one in drawn), strict=True
        )
    return AnswerBatch(prompts_RT, lengths_R1, tokens_RN, weights_RN, logprobs_RN, figures_RF)


class Sampler(Batches):
    """Source of batches and evaluator: samples answers to the questions of a task."""

    are_sampled = True

    def __init__(
        self, model: ModelConfig, train: TrainConfig, config: ReinforceConfig, tokenizer: Tokenizer, task: Task,
        mesh: Mesh, say: Say = print,
    ):  # fmt: skip
        """Raises UsageError if the context is longer than that of the model, or if its block cannot generate text."""
        self.config, self.seed, self.task, self.say = config, train.seed, task, say
        self.stages, self.template = train.stages(config.context), ChatTemplate(tokenizer)
        self.rows = train.batch_size * (MOST_ROUNDS + 1)
        """Rows of a batch: the most replies that the answers of a step can have."""
        self.engine = Engine(
            abstract_model(model), model, tokenizer, slots=config.slots, context=config.context, mesh=mesh
        )
        self.last = ""
        """The last question and its answer, for messages."""
        self.unrewarded = 0
        """Steps in a row without a reward."""

    def iterate(
        self, start_step: int, rows: Callable[[int, int], np.ndarray], stop_step: int, state: Callable[[], TrainState]
    ) -> Iterator[AnswerBatch]:
        """Iterate over the batches of the steps; raises like `sample`. All rows are returned."""
        return (self.batch(step, state()) for step in range(start_step, stop_step))

    def batch(self, step: int, state: TrainState) -> AnswerBatch:
        """Sample the batch of `step`, and warn if no step had a reward for long. Raises like `sample`."""
        config, answers = self.config, self.sample(state.model, step, held_out=False)
        figures_AF = np.array([one.figures for one in answers], float)
        by_question = lambda values_A: values_A.reshape(config.prompts, config.samples)
        weights = token_weights(by_question(figures_AF[:, 0]), by_question(figures_AF[:, 2]), config).ravel()
        replies = [(reply, weight) for one, weight in zip(answers, weights, strict=True) for reply in one.replies]
        batch = answer_batch(self.rows, config, replies)
        batch.figures_RF[: len(answers)] = figures_AF
        self.unrewarded = 0 if figures_AF[:, 0].any() else self.unrewarded + 1
        if self.unrewarded == UNREWARDED:
            self.say(
                f"train: warning: none of the {UNREWARDED * len(answers):,} answers of the last {UNREWARDED} steps had "
                f"a reward above 0, so nothing is learned. The last: {for_terminal(self.last)}. Check the task's "
                "check; ask what the model can answer sometimes; reward parts of an answer; raise reinforce.max_tokens "
                "if answers are cut; or finetune on answers first."
            )
        return batch

    def gradients(
        self, state: TrainState, batch: AnswerBatch, config: TrainConfig, metrics: Metrics
    ) -> tuple[jax.Array, Any]:
        """Gradients of the objective (lm.training.step.Gradients)."""
        rows = config.batch_size // config.micro_batches
        return objective_and_gradients(state.model, self.engine.shape, batch, rows, metrics)

    def identity(self) -> object:
        return identifying(self.config)

    def run_in_training(self, state: TrainState, mesh: object) -> dict[str, float]:
        """Return the means over one answer to each held-out question (lm.evaluation.evaluator.Evaluator)."""
        answers = self.sample(state.model_to_use, int(state.step), held_out=True)
        means_F = np.mean([one.figures for one in answers], axis=0)
        return {f"validation_{name}": float(mean) for name, mean in zip(FIGURES, means_F, strict=True)}

    @jax.transfer_guard("allow")
    def sample(self, model: Transformer, step: int, held_out: bool) -> list[SampledAnswer]:
        """Return config.samples answers to each training instance of the step, or one to each held-out instance, at
        temperature 1. Raises UsageError if a question does not fit into the context."""
        config, self.engine.model = self.config, model
        numbers = range(config.held_out) if held_out else range(step * config.prompts, (step + 1) * config.prompts)
        asked: list[tuple[Instance, Answer]] = []
        for instance in (instance_at(self.task, self.seed, number, held_out) for number in numbers):
            messages = [{"role": "user", "content": instance.question}]
            for _ in range(1 if held_out else config.samples):
                (seed,) = np.random.SeedSequence([self.seed, step, held_out, len(asked)]).generate_state(1).tolist()
                params = SamplingParams(config.max_tokens, seed=seed, logprobs=0)
                asked.append((instance, Answer(self.template, instance.tools, messages, params, config.context)))
        for _ in generate_answers(self.engine, *(answer for _, answer in asked)):
            pass
        answers = []
        for instance, answer in asked:
            reward = 0.0 if answer.finish_reason == "length" else float(instance.check(answer.messages[1:]))
            if not 0 <= reward <= 1:  # also NaN
                raise UsageError(
                    f"reinforce.task {config.task}: the reward of an answer to {shown(instance.question)} is {reward}. "
                    "Return a number from 0 to 1."
                )
            answers.append(SampledAnswer(answer.replies, reward))
            self.last = f"{shown(instance.question)}, answered {shown(answer.messages[-1])}"
        return answers


def open_answers(
    config: ReinforceConfig, task: Task, model: ModelConfig, train: TrainConfig, folder: Path,
    preemption: PreemptionHandler, say: Say,
) -> Data:  # fmt: skip
    """Open tokenizer, sampler and evaluators for `train` of lm/training/loop.py; the evaluator "validation" asks the
    held-out questions of `task`, which is named config.task. `train.batch_size` is a multiple of config.slots, in parts
    of as many answers or of a fraction. Raises UsageError if the devices do not divide a part, and like Sampler;
    InputError if the run was begun by an earlier version."""
    checkpoints, tokenizer = folders_of(RunPaths(folder))[0], load(RunPaths(folder).tokenizer)
    for step in steps_in(checkpoints)[-1:]:
        with contextlib.suppress(DamageError):
            if isinstance(read_manifest(checkpoints / str(step))["about"].get("data"), str):
                raise InputError(
                    f"{checkpoints / str(step)} was written by an earlier version of launch.reinforce, which computed "
                    "other steps. Train in another --workdir, or finish the run with that version."
                )
    least = config.slots * train.micro_batches // train.batch_size * jax.device_count()
    if config.slots % least:
        raise UsageError(
            f"reinforce.slots = {config.slots} answers cannot be split over {jax.device_count()} devices, in parts "
            f"(train.micro_batches). Make it a multiple of {least}."
        )
    sampler = Sampler(model, train, config, tokenizer, task, training_mesh(train, model), say)
    made = EvaluatorConfig(
        model, tokenizer, RunPaths(folder).tokens, config.slots, config.context, tasks=train.tasks,
        say=lambda text: say(f"train: {text}"), should_stop=preemption.requested_here,
    )  # fmt: skip
    names = train.evaluators if train.validate_every else ()
    evaluators = make_evaluators([name for name in names if name != "validation"], made, "train.evaluators")
    if "validation" in names:
        evaluators = {"validation": cast(Evaluator, sampler), **evaluators}
    example = answer_batch(sampler.rows, config)
    return Data(tokenizer, sampler, lambda step: evaluators, sampler.gradients, lambda stage: example)
