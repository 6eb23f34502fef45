"""The loop: weights of answers, learning, and the same bits after a kill."""

import dataclasses
import json
import re
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from lm.chat.templates import with_template
from lm.checkpoints.from_parameters import write_parameters
from lm.config import ReinforceConfig, StartConfig
from lm.errors import InputError, Stopped, UsageError
from lm.reinforcement import loop
from lm.reinforcement.tasks import TASKS, Instance
from tests.corpus import tiny_experiment
from tests.lm.model_configs import LLAMA, random_parameters
from tests.lm.reinforcement.test_scoring import TOKENIZER
from tests.run_files import restore_model

TALKER = with_template(TOKENIZER, "gristmill")
MODEL = dataclasses.replace(LLAMA, vocab_size=TALKER.vocab_size, context_length=48)
CONFIG = ReinforceConfig(
    task="ascii", prompts=2, samples=4, slots=4, context=48, max_tokens=8, held_out=6
)  # fmt: skip
REWARDS, LENGTHS = np.array([[1.0, 0.0, 0.0, 0.5], [1.0, 1.0, 1.0, 0.0]]), np.array([[1, 2, 3, 4], [5, 6, 7, 8]])


def ascii_letters(seed: int, number: int) -> Instance:
    """Write bytes below 128."""
    share = lambda text: sum(map(str.isascii, text)) / max(len(text), 1)
    return Instance(f"{seed} {number}", lambda messages: share(messages[-1]["content"]))


@pytest.fixture(autouse=True)
def _task(monkeypatch):
    monkeypatch.setitem(TASKS, "ascii", ascii_letters)


@pytest.mark.parametrize("reward", [float("nan"), -0.1, 2])
def test_rewards_that_are_none_are_refused(tmp_path, monkeypatch, reward):
    monkeypatch.setitem(TASKS, "ascii", lambda seed, number: Instance(f"{seed} {number}", lambda messages: reward))
    with pytest.raises(UsageError, match=r"the reward of an answer to '0 \d+' is .*a number from 0 to 1"):
        learn(tmp_path / "run", dataclasses.replace(CONFIG, max_tokens=30))


@pytest.mark.parametrize("reward", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_each_step_prints_a_line_and_answers_without_any_reward_a_warning(tmp_path, monkeypatch, capsys, reward):
    monkeypatch.setitem(TASKS, "ascii", lambda seed, number: Instance(f"{seed} {number}", lambda messages: reward))
    few = dataclasses.replace(CONFIG, prompts=1, samples=2, slots=2, max_tokens=40, held_out=1)
    learn(tmp_path / "run", few, steps=loop.UNREWARDED + 2, log_every=1, validate_every=0)
    printed = capsys.readouterr().out
    assert [int(step) for step in re.findall(r"^reinforce: step (\d+)/12  reward 0", printed, re.MULTILINE)] == [
        *range(1, 13)
    ]
    warnings = re.findall(r"^reinforce: warning: none of the 20 answers .*'0 \d+', answered \{'role.*", printed, re.M)
    assert len(warnings) == (reward == 0)


def learn(folder: Path, config: ReinforceConfig = CONFIG, **changes: int) -> list[np.ndarray]:
    """Train in `folder`, with other values `changes` of the section train; return the parameters."""
    start, tiny = folder.parent / "0", tiny_experiment().train
    if not start.exists():
        about = {"step": 0, "steps": 0, "tokenizer": TALKER.fingerprint}
        write_parameters(start, MODEL, random_parameters(MODEL), about)
    changes = {"steps": 4, "validate_every": 2, "checkpoint_every": 2, **changes}
    optimizer = dataclasses.replace(tiny.optimizer, learning_rate=1e-2, warmup_steps=1)
    train = dataclasses.replace(tiny, start=StartConfig(str(start)), optimizer=optimizer, **changes)
    folder.mkdir(exist_ok=True)
    loop.reinforce(MODEL, train, config, TALKER, folder, TASKS[config.task])
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restore_model(MODEL, folder / "checkpoints"))]


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def equal(one: list, other: list) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_a_run_that_is_killed_continues_with_the_same_bits(tmp_path, monkeypatch):
    wanted = learn(tmp_path / "whole")
    real, stopped = loop.Learner.step, []

    def killed(self, state):
        if state.step == 3 and not stopped:  # between two checkpoints
            stopped.append(3)
            raise SystemExit
        return real(self, state)

    monkeypatch.setattr(loop.Learner, "step", killed)
    with pytest.raises(SystemExit):
        learn(tmp_path / "cut")
    assert equal(learn(tmp_path / "cut"), wanted)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert [row["step"] for row in rows(tmp_path / "cut")] == [0, 1, 2, 2, 3, 4, 4]
    assert [row["step"] for row in rows(tmp_path / "cut") if "validation_reward" in row] == [0, 2, 4]
    assert all(row.get("logprob_difference", 0) == 0 for row in rows(tmp_path / "cut"))
    assert not equal(wanted, [random_parameters(MODEL)[name] for name in sorted(random_parameters(MODEL))])
    with pytest.raises(InputError, match="belongs to another run"):
        learn(tmp_path / "cut", dataclasses.replace(CONFIG, prompts=3))


@pytest.mark.slow
def test_sigterm_saves_and_the_run_resumes_with_the_same_bits(tmp_path, monkeypatch):
    wanted = learn(tmp_path / "whole")
    real = loop.Learner.step

    def signalled(self, state):
        if state.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return real(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Learner, "step", signalled)
        with pytest.raises(Stopped, match="saved at step 2"):
            learn(tmp_path / "cut")
    assert [row["step"] for row in rows(tmp_path / "cut")] == [0, 1, 2]
    assert equal(learn(tmp_path / "cut"), wanted)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_reinforce_subtracts_the_mean_of_the_other_answers():
    wanted = [[one - (row.sum() - one) / 3 for one in row] for row in REWARDS]
    np.testing.assert_allclose(loop.token_weights(REWARDS, LENGTHS, CONFIG), np.array(wanted) / 8 / 8)


def test_grpo_divides_by_the_standard_deviation_and_the_length():
    grpo = dataclasses.replace(CONFIG, algorithm="grpo")
    wanted = [[(one - row.mean()) / row.std() for one in row] for row in REWARDS]
    np.testing.assert_allclose(loop.token_weights(REWARDS, LENGTHS, grpo), np.array(wanted) / LENGTHS / 8, rtol=1e-5)


@pytest.mark.parametrize("algorithm", ["reinforce", "grpo"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_equal_rewards_give_no_gradient(algorithm, reward):
    config = dataclasses.replace(CONFIG, algorithm=algorithm)
    assert not loop.token_weights(np.full((2, 7), reward), np.ones((2, 7)), config).any()


def test_a_context_without_room_is_refused():
    with pytest.raises(UsageError, match=r"max_tokens = 48 must be below reinforce\.context = 48"):
        dataclasses.replace(CONFIG, max_tokens=48)
