"""Sampled batches: weights of answers, learning, and the same bits after a kill."""

import functools
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from lm.chat.templates import with_template
from lm.checkpoints.from_parameters import write_parameters
from lm.config import MeshConfig, ReinforceConfig, SpikeConfig, StartConfig, TrainConfig
from lm.errors import InputError, Stopped, UsageError
from lm.parallel import batch_sharding, make_mesh, shardings
from lm.reinforcement.sampler import UNREWARDED, Sampler, open_answers, token_weights
from lm.reinforcement.tasks import Instance, Task
from lm.resilience.preemption import PreemptionHandler
from lm.tokenizer import save
from lm.training.hooks import HookConfig
from lm.training.loop import train
from lm.training.optimizer import make_optimizer
from lm.training.state import TrainState, abstract_state, initializer
from lm.training.step import StepValues, compile_step
from lm.trusted_code import module_code, trust
from tests.corpus import tiny_experiment
from tests.lm.model_configs import LLAMA, random_model, random_parameters
from tests.lm.reinforcement.test_scoring import TOKENIZER
from tests.lm.trees import leaf_pairs
from tests.run_files import restore_model

TALKER = with_template(TOKENIZER, "gristmill")
MODEL = replace(LLAMA, vocab_size=TALKER.vocab_size, context_length=32, layers=1)
CONFIG = ReinforceConfig(task="ascii", prompts=2, samples=8, slots=8, context=32, max_tokens=20, held_out=6)
REWARDS, LENGTHS = np.array([[1.0, 0.0, 0.0, 0.5], [1.0, 1.0, 1.0, 0.0]]), np.array([[1, 2, 3, 4], [5, 6, 7, 8]])


def ascii_letters(seed: int, number: int) -> Instance:
    """Write bytes below 128."""
    share = lambda text: sum(map(str.isascii, text)) / max(len(text), 1)
    return Instance(f"{seed} {number}", lambda messages: share(messages[-1]["content"]))


def always(reward: float) -> Task:
    return lambda seed, number: Instance(f"{seed} {number}", lambda messages: reward)


def train_config(**changes: Any) -> TrainConfig:
    """For steps of two parts of as many answers as there are slots."""
    tiny = tiny_experiment().train
    optimizer = replace(tiny.optimizer, learning_rate=1e-2, warmup_steps=1)
    changes = {"steps": 4, "validate_every": 2, "checkpoint_every": 2, "log_every": 1, "sample_every": 0} | changes
    return replace(
        tiny, batch_size=16, verify_shards=False, optimizer=optimizer, **{"micro_batches": 2} | changes
    )  # fmt: skip


def sampler_on(
    devices: int, config: ReinforceConfig = CONFIG, task: Task = ascii_letters, **more: Any
) -> tuple[Sampler, TrainState, Callable]:
    """A Sampler, a state and the training step on a mesh of `devices`."""
    settings = train_config(**more)
    mesh = make_mesh(settings.mesh, MODEL, 8, jax.devices()[:devices])
    sampler = Sampler(MODEL, settings, config, TALKER, task, mesh)
    optimizer = make_optimizer(settings.optimizer, settings.steps)
    model = jax.tree.map(jnp.copy, random_model(MODEL))
    state = initializer(MODEL, optimizer, 0, mesh)()._replace(model=jax.device_put(model, shardings(model, mesh)))
    step = compile_step(optimizer, abstract_state(MODEL, optimizer, mesh), mesh, settings, sampler.gradients)
    return sampler, state, lambda state, batch: step(state, jax.device_put(batch, batch_sharding(mesh)))


@pytest.mark.fast_rows
@pytest.mark.parametrize("reward", [float("nan"), -0.1, 2])
def test_rewards_that_are_none_are_refused(reward):
    sampler, state, _ = sampler_on(1, task=always(reward))
    with pytest.raises(UsageError, match=r"the reward of an answer to '0 \d+' is .*a number from 0 to 1"):
        sampler.batch(0, state)


@pytest.mark.slow
@pytest.mark.parametrize("reward", [0.0, 0.5])
def test_answers_without_any_reward_give_a_warning(reward):
    sampler, state, _ = sampler_on(1, task=always(reward))
    said = []
    sampler.say = said.append
    for step in range(UNREWARDED + 2):
        sampler.batch(step, state)
    assert len(said) == (reward == 0)
    assert all("none of the 160 answers" in text and ", answered {'role" in text for text in said)


def learn(folder: Path, config: ReinforceConfig = CONFIG, task: Task = ascii_letters, **changes: Any) -> list:
    """Train in `folder`, with other values `changes` of the section train; return the parameters."""
    start = folder.parent / "0"
    if not start.exists():
        about = {"step": 0, "steps": 0, "tokenizer": TALKER.fingerprint}
        write_parameters(start, MODEL, random_parameters(MODEL), about)
    folder.mkdir(exist_ok=True)
    save(TALKER, folder / "tokenizer")
    settings = train_config(start=StartConfig(str(start)), **changes)
    train(MODEL, settings, folder, open_data=functools.partial(open_answers, config, task))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restore_model(MODEL, folder / "checkpoints"))]


def rows(folder: Path) -> list[dict]:
    """The rows of metrics, without times and memory."""
    found = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    names = ("step", "loss", "gradient_norm", "reward", "pass_at_1", "answer_tokens", "logprob_difference", "skipped")
    kept = lambda name: name in names or name.startswith("validation")
    return [{name: value for name, value in row.items() if kept(name)} for row in found if "run" not in row]


def equal(one: list, other: list) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_a_run_that_is_killed_continues_with_the_same_bits(tmp_path):
    wanted, kills = learn(tmp_path / "whole"), [SystemExit]

    def killed(seed: int, number: int) -> Instance:
        if number == 3 * CONFIG.prompts and kills:  # in the step between two checkpoints
            raise kills.pop()
        return ascii_letters(seed, number)

    with pytest.raises(SystemExit):
        learn(tmp_path / "cut", task=killed)
    assert equal(learn(tmp_path / "cut"), wanted)
    found = rows(tmp_path / "cut")
    assert found == rows(tmp_path / "whole")
    assert [(row["step"], "reward" in row, "validation_reward" in row) for row in found] == [
        (0, False, True), (1, True, False), (2, True, False), (2, False, True), (3, True, False), (4, True, False),
        (4, False, True),
    ]  # fmt: skip
    assert all(row.get("logprob_difference", 0) == 0 for row in found)
    assert any(row.get("gradient_norm") for row in found)
    with pytest.raises(InputError, match="belongs to another run"):
        learn(tmp_path / "cut", replace(CONFIG, prompts=1))


@pytest.mark.slow
def test_sigterm_saves_and_the_run_resumes_with_the_same_bits(tmp_path):
    config = replace(CONFIG, held_out=2)  # the questions 0 and 1
    wanted = learn(tmp_path / "whole", config, log_every=2)

    def signalled(seed: int, number: int) -> Instance:
        if number == CONFIG.prompts:  # in the second step
            signal.raise_signal(signal.SIGTERM)
        return ascii_letters(seed, number)

    with pytest.raises(Stopped, match="saved at step 2"):
        learn(tmp_path / "cut", config, signalled, log_every=2)
    assert [row["step"] for row in rows(tmp_path / "cut")] == [0, 2]
    assert equal(learn(tmp_path / "cut", config, log_every=2), wanted)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


class Distance:
    """A hook: the largest difference of a parameter from its average."""

    every = 2

    def __init__(self, config: HookConfig):
        pass

    def run(self, state: TrainState, step: int) -> dict[str, float]:
        pairs = leaf_pairs(state.ema, state.model)
        return {"distance": max(float(np.abs(np.asarray(one) - other).max()) for one, other in pairs)}


def trained_replies(values: StepValues) -> dict[str, jax.Array]:
    return {"trained_replies": jnp.sum(jnp.any(values.batch.weights_RN != 0, axis=1))}


@pytest.mark.slow
def test_hooks_metrics_evaluators_averages_spikes_snapshots_samples_and_sharded_parameters_work(tmp_path):
    evaluator = "tests.lm.evaluation.outside_evaluator.LargestParameter"
    for name in (__name__, evaluator.rpartition(".")[0]):
        trust(module_code(name))
    run = tmp_path / "run"
    learn(
        run, hooks=(f"{__name__}.Distance",), step_metrics=(f"{__name__}.trained_replies",), ema_decay=0.5, log_every=2,
        evaluators=("validation", evaluator), snapshot_steps=(0, 3), sample_every=4, spikes=SpikeConfig(window=2),
        mesh=MeshConfig(fsdp=2, zero1=True),
    )  # fmt: skip
    found: dict[int, dict] = {}
    for row in map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines()):
        found[row["step"]] = found.get(row["step"], {}) | row
    assert [*found] == [0, 2, 4]
    assert all("validation_reward" in row and "largest_parameter" in row for row in found.values())
    assert found[0]["run"]["mesh"] == {"data": 4, "fsdp": 2, "context": 1, "tensor": 1}
    assert all(found[step]["distance"] > 0 and 0 < found[step]["trained_replies"] <= 16 for step in (2, 4))
    assert {path.name for path in (run / "snapshots").iterdir()} >= {"0", "3"} and (run / "samples").is_dir()
    assert json.loads((run / "goodput.json").read_text("utf-8"))[0]["seconds"]["steps"] > 0


def two_steps(devices: int, **more: Any) -> list[float]:
    """Losses and gradient norms."""
    sampler, state, step = sampler_on(devices, **more)
    found = []
    for number in range(2):
        state, metrics = step(state, sampler.batch(number, state))
        assert float(metrics["own: reward"]) > 0 and float(metrics["gradient_norm"]) > 0
        found += [float(metrics["loss"]), float(metrics["gradient_norm"])]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "more"), [(2, {}), (1, {"micro_batches": 4})], ids=["data", "micro-batches"])
def test_steps_equal_those_on_one_device(devices, more):
    assert_allclose(two_steps(devices, **more), two_steps(1), rtol=1e-5)


def opened(folder: Path, **changes: int) -> None:
    save(TALKER, folder / "tokenizer")
    config = replace(CONFIG, **changes)
    open_answers(config, ascii_letters, MODEL, train_config(), folder, PreemptionHandler(), print)


def test_a_run_of_the_earlier_loop_is_refused(tmp_path):
    about = {"step": 2, "steps": 4, "tokenizer": TALKER.fingerprint, "data": '{"algorithm": "reinforce"}'}
    write_parameters(tmp_path / "checkpoints/2", MODEL, random_parameters(MODEL), about)
    with pytest.raises(InputError, match=r"checkpoints/2 was written by an earlier version of launch\.reinforce"):
        opened(tmp_path)


def test_slots_that_the_devices_do_not_divide_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"reinforce\.slots = 12 answers .* over 8 devices, .* a multiple of 8"):
        opened(tmp_path, slots=12)


def test_reinforce_subtracts_the_mean_of_the_other_answers():
    config = replace(CONFIG, max_tokens=8)
    wanted = [[one - (row.sum() - one) / 3 for one in row] for row in REWARDS]
    assert_allclose(token_weights(REWARDS, LENGTHS, config), np.array(wanted) / 8 / 8)


def test_grpo_divides_by_the_standard_deviation_and_the_length():
    grpo = replace(CONFIG, algorithm="grpo")
    wanted = [[(one - row.mean()) / row.std() for one in row] for row in REWARDS]
    assert_allclose(token_weights(REWARDS, LENGTHS, grpo), np.array(wanted) / LENGTHS / 8, rtol=1e-5)


@pytest.mark.parametrize("algorithm", ["reinforce", "grpo"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_equal_rewards_give_no_gradient(algorithm, reward):
    config = replace(CONFIG, algorithm=algorithm)
    assert not token_weights(np.full((2, 7), reward), np.ones((2, 7)), config).any()


def test_a_context_without_room_is_refused():
    with pytest.raises(UsageError, match=r"max_tokens = 32 must be below reinforce\.context = 32"):
        replace(CONFIG, max_tokens=32)
