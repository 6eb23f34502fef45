"""The loop of reinforcement learning: sample answers, check them, take a step. Runs on one device.

Answers are sampled from the same model that they train, with exact log-probabilities. So the ratio of the new to the
old policy is 1, and the clipping of PPO and GRPO would have no effect. A step depends only on its number, the config
and the state before it, so a run that was killed resumes with the same bits.
"""

import contextlib
import functools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lm.chat.assistant import Answer, generate_answers
from lm.chat.template import ChatTemplate
from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import RetentionPolicy, folders_of, lengths, steps_in
from lm.config import ModelConfig, ReinforceConfig, TrainConfig
from lm.errors import UsageError, for_terminal, shown
from lm.fields import identifying
from lm.inference.engine import Engine, bucket, padded
from lm.inference.requests import SamplingParams
from lm.metrics.meter import MetricsLog
from lm.metrics.writers import Row
from lm.model.transformer import Transformer
from lm.optimizers.rounding import apply_updates
from lm.parallel import one_device_mesh, traced_on
from lm.reinforcement.scoring import AnswerBatch, objective
from lm.reinforcement.tasks import Instance, Task, instance_at
from lm.resilience.preemption import PreemptionHandler
from lm.run_paths import RunPaths
from lm.terminal import duration
from lm.tokenizer import Tokenizer
from lm.training.optimizer import make_optimizer
from lm.training.restore_or_init import check_start, restore_or_init
from lm.training.state import TrainState, abstract_state, initializer

UNREWARDED = 10
"""Steps in a row without a reward after which a warning is printed."""


class SampledReply(NamedTuple):
    """A sampled reply of the assistant."""

    prompt: tuple[int, ...]
    """Token ids before it."""
    tokens: tuple[int, ...]
    """Sampled tokens, including the end token."""
    logprobs: tuple[float, ...]
    """Their log-probabilities in nats, from the engine."""


class SampledAnswer(NamedTuple):
    """A sampled answer: one reply, and another after each round of calls."""

    replies: tuple[SampledReply, ...]
    reward: float
    """0 if the answer was cut."""

    @property
    def length(self) -> int:
        """Tokens drawn."""
        return sum(len(one.tokens) for one in self.replies)


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


class Learner:
    """A model that learns from its own answers."""

    def __init__(
        self, model: ModelConfig, train: TrainConfig, config: ReinforceConfig, state: TrainState, tokenizer: Tokenizer,
        task: Task,
    ):  # fmt: skip
        self.config, self.seed, self.optimizer = config, train.seed, make_optimizer(train.optimizer, train.steps)
        self.template, self.task, mesh = ChatTemplate(tokenizer), task, one_device_mesh(model)
        self.last = ""
        """The last question and its answer, for messages."""
        self.engine = Engine(state.model, model, tokenizer, slots=config.slots, context=config.context, mesh=mesh)
        minimized = functools.partial(objective, shape=self.engine.shape)
        self.gradients = traced_on(mesh, jax.jit(jax.value_and_grad(minimized, has_aux=True)), training=True)
        self.apply = traced_on(mesh, jax.jit(self.updated), training=True)

    def updated(self, state: TrainState, gradients: Transformer) -> tuple[TrainState, jax.Array]:
        """Return the state after an optimizer step, and the norm of the gradients."""
        parameters = cast(optax.Params, state.model)
        updates, inner = self.optimizer.update(cast(optax.Updates, gradients), state.optimizer_state, parameters)
        model: Any = apply_updates(parameters, updates, jax.random.fold_in(jax.random.key(self.seed), state.step))
        return state._replace(step=state.step + 1, model=model, optimizer_state=inner), optax.tree.norm(gradients)

    def sample(self, state: TrainState, held_out: bool) -> list[SampledAnswer]:
        """Return config.samples answers to each training instance of the step, or one to each held-out instance, at
        temperature 1. Raises UsageError if a question does not fit into the context."""
        config, step, self.engine.model = self.config, int(state.step), state.model
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
            replies = tuple(
                SampledReply(request.prompt, *zip(*((one.token, one.logprob) for one in drawn), strict=True))
                for request, drawn in answer.replies
            )
            answers.append(SampledAnswer(replies, reward))
            self.last = f"{shown(instance.question)}, answered {shown(answer.messages[-1])}"
        return answers

    def step(self, state: TrainState) -> tuple[TrainState, Row]:
        """Return the state after a step, and its metrics."""
        answers, config = self.sample(state, held_out=False), self.config
        by_question = lambda values: np.array([*values], float).reshape(config.prompts, config.samples)
        rewards = by_question(one.reward for one in answers)
        weights = token_weights(rewards, by_question(one.length for one in answers), config).ravel()
        pairs = [(reply, weight) for one, weight in zip(answers, weights, strict=True) for reply in one.replies]
        total, largest = jax.tree.map(jnp.zeros_like, state.model), 0.0
        for some, batch in batches(*zip(*pairs, strict=True), self.engine, config.max_tokens):
            (_, logprobs_BN), gradients = self.gradients(state.model, batch=batch)
            total = jax.tree.map(jnp.add, total, gradients)
            largest = max(largest, largest_difference(some, logprobs_BN))
        state, norm = self.apply(state, total)
        return state, summary(answers) | {"gradient_norm": float(norm), "logprob_difference": largest}

    def evaluate(self, state: TrainState) -> Row:
        """Return the metrics on held-out instances."""
        return {f"validation_{name}": value for name, value in summary(self.sample(state, held_out=True)).items()}


def summary(answers: Sequence[SampledAnswer]) -> Row:
    """Return means over the answers. pass_at_1 is the share of solved instances."""
    rewards, lengths = np.array([one.reward for one in answers]), [one.length for one in answers]
    means = {"reward": rewards.mean(), "pass_at_1": (rewards == 1).mean(), "answer_tokens": np.mean(lengths)}
    return {name: float(mean) for name, mean in means.items()}


def batches(
    replies: Sequence[SampledReply], weights: Iterable[float], engine: Engine, max_tokens: int
) -> Iterator[tuple[list[SampledReply], AnswerBatch]]:
    """Yield (replies, the same as arrays, with the `weights` of their tokens), grouped by the padded lengths of their
    prompts. Replies of weight 0 are omitted; the last reply fills free rows, with weight 0."""
    slots, groups = engine.shape.slots, {}
    for reply, weight in zip(replies, weights, strict=True):
        if weight:
            groups.setdefault(bucket(len(reply.prompt), engine.context), []).append((reply, float(weight)))
    for length, group in sorted(groups.items()):
        for start in range(0, len(group), slots):
            some = group[start : start + slots]
            rows = [*some, *[(some[-1][0], 0.0)] * (slots - len(some))]
            weights_BN = np.zeros((slots, max_tokens), np.float32)
            for weights_N, (reply, weight) in zip(weights_BN, rows, strict=True):
                weights_N[: len(reply.tokens)] = weight
            prompts_BT = padded([reply.prompt for reply, _ in rows], length)
            lengths_B = np.array([len(reply.prompt) for reply, _ in rows], np.int32)
            tokens_BN = padded([reply.tokens for reply, _ in rows], max_tokens)
            yield [reply for reply, _ in some], AnswerBatch(prompts_BT, lengths_B, tokens_BN, weights_BN)


def largest_difference(replies: Sequence[SampledReply], logprobs_BN: jax.Array) -> float:
    """Return the largest difference between the engine's log-probabilities and the trainer's, in nats: 0 if exact."""
    pairs = zip(replies, np.asarray(logprobs_BN), strict=False)
    return max(float(np.abs(found_N[: len(one.tokens)] - one.logprobs).max()) for one, found_N in pairs)


def reinforce(
    model: ModelConfig, train: TrainConfig, config: ReinforceConfig, tokenizer: Tokenizer, folder: Path, task: Task
) -> None:
    """Train the model of the checkpoint train.start on `task`, which is named config.task, up to train.steps, resuming
    from the newest checkpoint in `folder`. Writes checkpoints/, metrics.jsonl and tensorboard/ there.

    Raises InputError or UsageError if a checkpoint does not match the config, and Stopped, after saving, if the process
    was asked to stop.
    """
    paths, mesh, optimizer = RunPaths(folder), one_device_mesh(model), make_optimizer(train.optimizer, train.steps)
    place, fingerprint = folders_of(paths)[0], tokenizer.fingerprint
    if not steps_in(place):
        check_start(model, train, fingerprint, files=True)
    about = {"seed": train.seed, "tokenizer": fingerprint, "data": json.dumps(identifying(config), sort_keys=True)}
    with contextlib.ExitStack() as stack:
        preemption = stack.enter_context(PreemptionHandler())
        checkpoints = Checkpoints(place, RetentionPolicy(train.checkpoints_kept), sidecars=(paths.metrics,))
        stack.callback(checkpoints.close, raising=False)
        abstract, fresh = abstract_state(model, optimizer, mesh), initializer(model, optimizer, train.seed, mesh)
        state, saved = restore_or_init(checkpoints, train.start, abstract, fresh, about)
        about |= lengths(saved, train.steps)
        first, learner = int(state.step), Learner(model, train, config, state, tokenizer, task)
        log = stack.enter_context(contextlib.closing(MetricsLog(folder, first, evaluation_pending=True)))
        preemption.training = True
        began, unrewarded = time.monotonic(), 0
        due = lambda every, step: step == train.steps or (every > 0 and step % every == 0)
        for step in range(first, train.steps + 1):
            if train.validate_every and due(train.validate_every, step):
                log.write(step, row := learner.evaluate(state))
                print(f"reinforce: step {step:,}: {row['validation_pass_at_1']:.1%} solved", flush=True)
            if step == train.steps:
                break
            state, row = learner.step(state)
            log.write(step + 1, row)
            if due(train.log_every, step + 1):
                left = (time.monotonic() - began) / (step + 1 - first) * (train.steps - step - 1)
                print(
                    f"reinforce: step {step + 1:,}/{train.steps:,}  reward {row['reward']:.3f}  solved "
                    f"{row['pass_at_1']:.1%}  {row['answer_tokens']:.0f} tokens an answer  {duration(left)} left",
                    flush=True,
                )
            unrewarded = 0 if row["reward"] else unrewarded + 1
            if unrewarded == UNREWARDED:
                print(
                    f"reinforce: warning: none of the {UNREWARDED * config.prompts * config.samples:,} answers of the "
                    f"last {UNREWARDED} steps had a reward above 0, so nothing is learned. The last: "
                    f"{for_terminal(learner.last)}. Check the task's check; ask what the model can answer sometimes; "
                    "reward parts of an answer; raise reinforce.max_tokens if answers are cut; or finetune on answers "
                    "first.",
                    flush=True,
                )
            stopping = preemption.requested(step + 1)
            if stopping or due(train.checkpoint_every, step + 1):
                checkpoints.save(step + 1, state, about, certain=True)
            if stopping:
                checkpoints.close()
                raise preemption.stopped(step + 1)
        checkpoints.close()
