"""launch.reinforce trains a finetuned run, and other commands know the result."""

import dataclasses
import json
import re
from typing import cast

import jax.numpy as jnp
import optax
import pytest

from configs.experiment.run_folder import RunFolder
from configs.reinforce import get_config
from launch import reinforce
from lm.chat.template import ChatTemplate
from lm.chat.tools import NO_TOOLS, tools_of
from lm.config import ReinforceConfig, SpikeConfig, TrainConfig
from lm.errors import UsageError
from lm.parallel import one_device_mesh
from lm.reinforcement.loop import Learner
from lm.reinforcement.tasks import Instance
from lm.tokenizer import save, train_tokenizer
from lm.training.anomaly_guard import make_guard
from lm.training.optimizer import make_optimizer
from lm.training.state import TrainState
from tests.assistant_run import PAGES, base_experiment
from tests.commands import run_command
from tests.corpus import texts, tiny_experiment
from tests.launch.run_folder import recorded_in
from tests.test_house import REPOSITORY

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
    assert done.returncode == 0 and "reinforce: step 2: " in done.stdout, done.stdout + done.stderr
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [(row["step"], "reward" in row, "validation_pass_at_1" in row) for row in rows] == [
        (0, False, True), (1, True, False), (2, True, False), (2, False, True),
    ]  # fmt: skip
    done = run_command("launch.reinforce", run)
    assert done.stdout.startswith("reinforce: up to date"), done.stdout + done.stderr
    done = run_command("launch.chat", run, "--message", "What is Brem?", "--max-tokens", "8")
    assert done.returncode == 0 and done.stdout.startswith("> What is Brem?\n"), done.stderr
    done = run_command("launch.report", run, "--chat.questions", "What is Brem?")
    assert done.returncode == 0, done.stderr
    page = recorded_in(run / "report/index.html")
    assert page["curves{}"]["train"]["reward"] == [row["reward"] for row in rows if "reward" in row]
    assert len(page["curves{}"]["validation"]["validation_pass_at_1"]) == 2
    assert page["chat{}"]["conversations"][0][0]["content"] == "What is Brem?"
    for script in ("launch.finetune", "launch.evaluate", "launch.train"):
        done = run_command(script, run)
        assert done.returncode == 2 and "This run is reinforced from" in done.stderr, (script, done.stderr)
    pages = (*SHORT, "--reinforce.task", "page_questions", "--reinforce.context", "160")
    done = run_command("launch.reinforce", assistant, CONFIG, "--workdir", tmp_path / "pages", *pages)
    assert done.returncode == 0 and "reinforce: step 2: " in done.stdout, done.stdout + done.stderr
    words = ("tests/assistant_run.py", "--workdir", tmp_path / "again", "--chat.conversations")
    steps = ("--train.steps", "2", "--train.optimizer.warmup-steps", "1")
    done = run_command("launch.finetune", run, *words, assistant.parent / "talks.jsonl", *steps)
    assert done.returncode == 0, done.stderr
    done = run_command("launch.reinforce", run, "--reinforce.algorithm", "grpo")
    assert done.returncode == 2 and "another experiment" in done.stderr, done.stderr


def test_answers_with_tools_are_sampled_and_trained_reply_by_reply(assistant):
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
    train = loaded.experiment.train
    optimizer = make_optimizer(train.optimizer, train.steps)
    state = TrainState(
        jnp.int32(0), loaded.model, optimizer.init(cast(optax.Params, loaded.model)), make_guard(SpikeConfig())
    )
    learner = Learner(loaded.experiment.model, train, config, state, loaded.tokenizer, task)
    answers = learner.sample(state, held_out=False)
    solved = [(one, messages) for one, messages in zip(answers, asked, strict=True) if one.reward]
    assert len(solved) > 4, "the talks are learned"
    for one, messages in solved:
        assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
        ends = [template.encode(messages[:count], reply=True).ids.tolist() for count in (1, 3)]
        assert [list(reply.prompt) for reply in one.replies] == ends, "the result of the tool is read"
        assert one.length == sum(len(reply.tokens) for reply in one.replies)
    _, row = learner.step(state)
    assert row["logprob_difference"] == 0 and row["answer_tokens"] > 10

    # Without its end token, a call is cut, although it can be read.
    calls = [one.replies[0].tokens for one, _ in solved]
    learner.config = dataclasses.replace(config, max_tokens=max(map(len, calls)) - 1)
    learner.task = lambda seed, number: task(seed, number)._replace(check=lambda messages: 1.0, tools=NO_TOOLS)
    answers = learner.sample(state, held_out=False)
    ended = [one.replies[0].tokens[-1] in loaded.tokenizer.eos_ids for one in answers]
    assert [one.reward for one in answers] == [*map(float, ended)] and not all(ended)


def test_the_list_of_settings_that_are_read_is_what_the_loop_reads():
    source = (REPOSITORY / "lm/reinforcement/loop.py").read_text(encoding="utf-8")
    listed = {name.removesuffix(".") for name in reinforce.READS if name.startswith("train.")}
    assert {f"train.{name}" for name in re.findall(r"\btrain\.(\w+)", source)} == listed | {"train.start"}


def test_every_setting_is_read_or_refused_if_it_is_changed():
    base = dataclasses.replace(base_experiment(), reinforce=ReinforceConfig(base="runs/assistant"))
    settings = reinforce.settings_of(base)
    of_train = {f"train.{field.name}" for field in dataclasses.fields(TrainConfig)}
    assert of_train == {".".join(name.split(".")[:2]) for name in settings if name.startswith("train.")}
    for name in settings:
        changed = settings | {name: "another"}
        if name != "model.attention" and name.startswith(reinforce.READS):
            reinforce.refuse_unread(changed, [settings])
            continue
        with pytest.raises(UsageError, match=rf"does not read {re.escape(name)} = another\. .* runs/assistant: "):
            reinforce.refuse_unread(changed, [settings])
        reinforce.refuse_unread(changed, [settings, changed])  # the run itself is resumed


def test_its_own_config_is_accepted_for_a_run_that_was_finetuned_with_patience():
    base = base_experiment()
    trained = {"patience": 3, "validate_every": 1, "ema_decay": 0.9}  # as configs/finetune.py sets them
    base = dataclasses.replace(base, train=dataclasses.replace(base.train, **trained))
    off = dataclasses.replace(base, train=dataclasses.replace(base.train, **reinforce.UNUSED))
    given = reinforce.settings_of(get_config(base)) | {"reinforce.base": "runs/assistant"}
    reinforce.refuse_unread(given, [reinforce.settings_of(base), reinforce.settings_of(off)])


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
            ["BASE", CONFIG, "--train.ema-decay", "0.99", "--sample.tokens", "9"],
            r"does not read train\.ema_decay = 0\.99, sample\.tokens = 9\. Leave it as in .*/assistant: 0\.0, 24\. Of",
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
