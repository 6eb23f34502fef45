"""launch.reinforce trains a finetuned run, and other commands know the result."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import pytest

from configs.experiment.run_folder import RunFolder
from configs.reinforce import get_config
from launch import reinforce
from lm.chat.template import ChatTemplate
from lm.chat.tools import NO_TOOLS, tools_of
from lm.config import (
    LoraConfig,
    MeshConfig,
    MixtureSource,
    MixtureStage,
    ReinforceConfig,
    SpikeConfig,
    StartConfig,
    TasksConfig,
    TrainConfig,
)
from lm.errors import UsageError
from lm.fields import with_values
from lm.parallel import one_device_mesh
from lm.reinforcement.sampler import Sampler
from lm.reinforcement.tasks import Instance
from lm.tokenizer import save, train_tokenizer
from lm.training.optimizer import make_optimizer
from lm.training.state import abstract_state, initializer
from lm.training.step import compile_step
from tests.assistant_run import PAGES, base_experiment
from tests.commands import run_command
from tests.corpus import texts, tiny_experiment
from tests.launch.run_folder import recorded_in
from tests.train_runs import rows

CONFIG = "configs/reinforce.py"
SHORT = (
    "--train.steps", "2", "--train.optimizer.warmup-steps", "1", "--train.validate-every", "2", "--reinforce.slots",
    "4", "--reinforce.prompts", "2", "--reinforce.samples", "2", "--reinforce.held-out", "4", "--reinforce.max-tokens",
    "8", "--reinforce.context", "96",
)  # fmt: skip


@pytest.mark.slow
def test_a_finetuned_run_is_reinforced_and_talks(assistant, tmp_path):
    run = tmp_path / "reinforced"
    done = run_command("launch.reinforce", assistant, CONFIG, "--workdir", run, *SHORT)
    assert done.returncode == 0 and "train: step 2  " in done.stdout, done.stdout + done.stderr
    first, *logged = rows(run)
    assert "run" in first
    assert [(row["step"], "reward" in row, "validation_pass_at_1" in row) for row in logged] == [
        (0, False, True), (1, True, False), (2, True, False), (2, False, True),
    ]  # fmt: skip
    done = run_command("launch.reinforce", run)
    assert done.stdout.startswith("reinforce: up to date"), done.stdout + done.stderr
    done = run_command("launch.chat", run, "--message", "What is Brem?", "--max-tokens", "8")
    assert done.returncode == 0 and done.stdout.startswith("> What is Brem?\n"), done.stderr
    done = run_command("launch.report", run, "--chat.questions", "What is Brem?")
    assert done.returncode == 0, done.stderr
    page = recorded_in(run / "report/index.html")
    assert page["curves{}"]["train"]["reward"] == [row["reward"] for row in logged if "reward" in row]
    assert len(page["curves{}"]["validation"]["validation_pass_at_1"]) == 2
    assert page["chat{}"]["conversations"][0][0]["content"] == "What is Brem?"
    for script in ("launch.finetune", "launch.evaluate", "launch.train"):
        done = run_command(script, run)
        assert done.returncode == 2 and "This run is reinforced from" in done.stderr, (script, done.stderr)
    pages = (*SHORT, "--reinforce.task", "page_questions", "--reinforce.context", "160")
    done = run_command("launch.reinforce", assistant, CONFIG, "--workdir", tmp_path / "pages", *pages)
    assert done.returncode == 0 and "train: step 2  " in done.stdout, done.stdout + done.stderr
    words = ("tests/assistant_run.py", "--workdir", tmp_path / "again", "--chat.conversations")
    steps = ("--train.steps", "2", "--train.optimizer.warmup-steps", "1")
    done = run_command("launch.finetune", run, *words, assistant.parent / "talks.jsonl", *steps)
    assert done.returncode == 0, done.stderr
    done = run_command("launch.reinforce", run, "--reinforce.algorithm", "grpo")
    assert done.returncode == 2 and "another experiment" in done.stderr, done.stderr


@pytest.mark.fast_rows
@pytest.mark.parametrize("trained", [False, True])
def test_answers_with_tools_are_sampled_and_trained_reply_by_reply(assistant, trained):
    loaded = RunFolder(assistant).load(one_device_mesh(base_experiment().model))
    template, tools = ChatTemplate(loaded.tokenizer), tools_of(str(assistant.parent / "base"), loaded.tokenizer)
    names, asked = [*PAGES], []

    def task(seed: int, number: int) -> Instance:
        name = names[number % len(names)]
        question = f"What is {name}?" + " " * (number % 12)

        def check(messages):
            asked.append([{"role": "user", "content": question}, *messages])
            return float(messages[-1]["content"] == PAGES[name].partition(". ")[0] + ".")

        return Instance(question, check, tools)

    config = ReinforceConfig(prompts=4, samples=2, slots=4, context=160, max_tokens=60)
    experiment = dataclasses.replace(loaded.experiment, reinforce=config)
    model, train = experiment.model, reinforce.training_config(experiment)
    mesh, optimizer = one_device_mesh(model), make_optimizer(train.optimizer, train.steps)
    sampler = Sampler(model, train, config, loaded.tokenizer, task, mesh)
    answers = sampler.sample(loaded.model, 0, held_out=False)
    solved = [(one, messages) for one, messages in zip(answers, asked, strict=True) if one.reward]
    assert len(solved) > 4, "the talks are learned"
    for one, messages in solved:
        assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
        ends = [template.encode(messages[:count], reply=True).ids.tolist() for count in (1, 3)]
        assert [list(request.prompt) for request, _ in one.replies] == ends, "the result of the tool is read"
        assert one.figures == (1, True, sum(len(drawn) for _, drawn in one.replies))
    if not trained:
        return
    state = initializer(model, optimizer, 0, mesh)()._replace(model=jax.tree.map(jnp.copy, loaded.model))
    step = compile_step(optimizer, abstract_state(model, optimizer, mesh), mesh, train, sampler.gradients)
    _, metrics = step(state, sampler.batch(0, state))
    assert metrics["own: logprob_difference"] == 0 and metrics["own: answer_tokens"] > 10

    # Without its end token, a call is cut, although it can be read.
    calls = [one.replies[0][1] for one, _ in solved]
    sampler.config = dataclasses.replace(config, max_tokens=max(map(len, calls)) - 1)
    sampler.task = lambda seed, number: task(seed, number)._replace(check=lambda messages: 1.0, tools=NO_TOOLS)
    answers = sampler.sample(loaded.model, 0, held_out=False)
    ended = [one.replies[0][1][-1].token in loaded.tokenizer.eos_ids for one in answers]
    assert [one.reward for one in answers] == [*map(float, ended)] and not all(ended)


OTHERS = {
    "steps": 9, "batch_size": 16, "seed": 5, "optimizer": None, "validate_every": 7, "validation_batches": 3,
    "sample_every": 3, "sample_prompt": "A", "sample_tokens": 9, "checkpoint_every": 5, "checkpoints_kept": 7,
    "log_every": 3, "mesh": MeshConfig(fsdp=2, zero1=True), "loss_chunks": 2, "loader_threads": 3,
    "skip_untrained": True, "layout": "v6e:8x8", "micro_batches": 2, "remat": "full", "remat_keep": ("mlpwi",),
    "remat_offload": ("mlpwi",), "z_loss": 0.1, "ema_decay": 0.9, "dropout": 0.1,
    "mixture": (MixtureSource("runs/a/tokens", 1.0),), "own_weight": 2.0, "xla_options": ("xla_a=1",),
    "shuffle_block": 2, "batch_schedule": ((1, 16),), "context_schedule": ((1, 80),),
    "mixture_schedule": (MixtureStage(1, (1.0,)),), "wandb_project": "p", "profile_step": 1, "profile_steps": 2,
    "checkpoints_kept_every": 2, "checkpoints_kept_best": 1, "patience": 1, "snapshot_steps": (0, 1),
    "spikes": SpikeConfig(window=3), "start": StartConfig("runs/a/checkpoints/1"), "lora": LoraConfig(rank=2),
    "verify_shards": False, "evaluators": ("validation", "hellaswag"), "hooks": ("a.B",), "step_metrics": ("a.b",),
    "activation_metrics": ("blocks.*",), "tasks": TasksConfig("data"), "checkpoint_every_seconds": 3.0,
    "join_timeout": 4.0, "start_seconds": 900.0, "hang_seconds": 6.0,
}  # fmt: skip
"""Another value of each field of TrainConfig."""


def test_every_field_of_train_reaches_the_training_loop_or_is_refused_with_a_reason():
    reinforced = ReinforceConfig(base="runs/assistant", prompts=3, samples=4, slots=8)
    settings = {"train.steps": 5, "train.batch_size": 8, "train.validate_every": 1, "train.remat": "minimal"}
    base = with_values(base_experiment(), settings | {"reinforce": reinforced})
    assert [*OTHERS] == [field.name for field in dataclasses.fields(TrainConfig)]
    for name, value in OTHERS.items():
        value = dataclasses.replace(base.train.optimizer, learning_rate=0.5) if name == "optimizer" else value
        changed = with_values(base, {f"train.{name}": value})
        given, accepted = reinforce.settings_of(changed), [reinforce.settings_of(base)]
        if reason := reinforce.UNUSED.get(f"train.{name}"):
            with pytest.raises(UsageError, match=rf"does not use train\.{name}.*\({re.escape(reason)}\)"):
                reinforce.refuse_unused(given, accepted)
            reinforce.refuse_unused(given, [*accepted, given])  # the run itself is resumed
            same = reinforce.training_config(changed) == reinforce.training_config(base)
            unread = ("start", "validation_batches", "loss_chunks", "loader_threads")
            assert same or name in unread
        else:
            reinforce.refuse_unused(given, accepted)
            wanted = 2 * 2 if name == "micro_batches" else value  # 12 answers are two parts of 8 slots
            assert getattr(reinforce.training_config(changed), name) == wanted != getattr(base.train, name)
    for option in ("train.mesh.tensor", "train.mesh.context", "model.attention", "sample.tokens"):
        with pytest.raises(UsageError, match=rf"does not use {option} = 2 \("):
            reinforce.refuse_unused(accepted[0] | {option: 2}, accepted)


def test_micro_batches_that_do_not_divide_the_slots_are_refused():
    settings = {"train.steps": 5, "train.batch_size": 8, "train.micro_batches": 2}
    base = with_values(base_experiment(), settings | {"reinforce": ReinforceConfig(slots=9)})
    with pytest.raises(UsageError, match=r"micro_batches = 2 does not divide reinforce\.slots = 9"):
        reinforce.training_config(base)


def test_its_own_config_is_accepted_for_a_run_that_was_finetuned_with_patience():
    trained = {"patience": 3, "validate_every": 1, "ema_decay": 0.9, "micro_batches": 2}  # as configs/finetune.py
    base = with_values(base_experiment(), {f"train.{name}": value for name, value in trained.items()})
    off = with_values(base, {"train.patience": 0})
    made = get_config(base)
    assert made.train.ema_decay == 0 and made.train.micro_batches == 1 and made.train.log_every == 1
    given = reinforce.settings_of(made) | {"reinforce.base": "runs/assistant"}
    reinforce.refuse_unused(given, [reinforce.settings_of(base), reinforce.settings_of(off)])


@pytest.mark.parametrize("script", ["launch.chat", "launch.reinforce"])
def test_a_base_model_is_refused_before_its_parameters_are_read(tmp_path, script):
    (run := tmp_path / "base").mkdir()
    experiment = tiny_experiment()
    (run / "config.json").write_text(json.dumps(dataclasses.asdict(experiment)))
    save(train_tokenizer(texts(9), experiment.tokenizer), run / "tokenizer")
    words = [run] if script == "launch.chat" else [run, CONFIG, "--workdir", tmp_path / "new"]
    done = run_command(script, *words)
    assert done.returncode == 2 and "base: The tokenizer has no chat template" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["BASE", CONFIG, "--train.dropout", "0.5", "--sample.tokens", "9"],
            r"train\.dropout = 0\.5 \(the log-.*\), sample\.tokens = 9 \(.*\)\. Leave it as in .*: 0\.0, 24\.",
        ),
        (["tests/configs.py"], r"reinforce\.base is empty"),
        ([], "launch.reinforce runs/assistant configs/reinforce.py"),
        (
            ["BASE", CONFIG, "--reinforce.task", "sums"],
            r"Choose one of reverse_words, sort_numbers, calculator, page_qu",
        ),
        (["BASE", CONFIG, "--from", "BASE"], r"launch\.reinforce starts from reinforce\.base"),
    ],
)
def test_wrong_commands_are_refused(assistant, tmp_path, words, message):
    words = [assistant if word == "BASE" else word for word in words]
    done = run_command("launch.reinforce", *words, *(("--workdir", tmp_path / "run") if words else ()))
    assert done.returncode == 2 and re.search(message, done.stderr) and "Traceback" not in done.stderr, done.stderr
