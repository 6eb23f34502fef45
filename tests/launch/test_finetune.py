"""launch.finetune makes an assistant of a run, resumes exactly, and other commands work on the result."""

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from configs.experiment.run_folder import RunFolder
from launch.finetune import prepared
from lm.chat.assistant import Answer, generate_answers
from lm.chat.messages import check_messages
from lm.chat.template import ChatTemplate
from lm.chat.templates import with_template
from lm.chat.tools import tools_of
from lm.config import LoraConfig
from lm.config.tokenizer import CHAT_TOKENS, SPECIAL_TOKENS
from lm.errors import UsageError
from lm.fields import with_values
from lm.inference.engine import Engine
from lm.inference.requests import SamplingParams
from lm.model.param_names import named_leaves
from lm.parallel import one_device_mesh
from lm.resilience.goodput import read_heartbeat
from lm.tokenizer import load, save, train_tokenizer
from lm.tokenizer.characters import CharacterTokenizer
from lm.training.loop import train
from tests.assistant_run import PAGES, base_experiment, talks, write_base
from tests.commands import Ended, run_command
from tests.corpus import texts, tiny_experiment
from tests.launch.run_folder import recorded_in
from tests.launch.test_report import HOSTILE
from tests.lm.evaluation.task_files import write_jsonl
from tests.run_files import HANG_SECONDS, QUICK, restore_model, start_module
from tests.train_process import free_port, told_by
from tests.train_runs import bits, rows

CONFIG = "tests/assistant_run.py"
SHORT = ("--train.steps", "2", "--train.optimizer.warmup-steps", "1")


def finetune(base: object, workdir: Path, conversations: object, *options: object, code: int = 0, **more) -> Ended:
    words = (base, CONFIG, "--workdir", workdir, "--chat.conversations", conversations, *options)
    done = run_command("launch.finetune", *words, **more)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done


def test_the_talks_are_learned_and_the_tools_are_called(assistant):
    experiment = base_experiment()
    loaded = RunFolder(assistant).load(one_device_mesh(experiment.model))
    template, tools = ChatTemplate(loaded.tokenizer), tools_of(str(assistant.parent / "base"), loaded.tokenizer)
    engine = Engine(loaded.model, loaded.experiment.model, loaded.tokenizer, slots=1, mesh=loaded.mesh)
    params = SamplingParams(max_tokens=99, temperature=0.0)
    asked = [(talk, Answer(template, tools, talk[:1], params, engine.context)) for talk in map(check_messages, talks())]
    found = [*generate_answers(engine, *(answer for _, answer in asked))]
    for talk, answer in asked:
        steps = [step for whose, step in found if whose is answer]
        messages = [step.message for step in steps if step.message is not None]
        assert [one | {"name": "", "role": ""} for one in messages] == [
            one | {"name": "", "role": ""} for one in talk[1:]
        ]
        assert answer.messages == [*talk[:1], *messages] and len(answer.replies) == 2
        assert "".join(step.text for step in steps) == talk[-1]["content"] and steps[-1].finish_reason == "stop"
        urls = [source.url for step in steps if step.result for source in step.result.sources]
        name = talk[0]["content"].split()[-1].strip("?")
        assert urls == ([f"https://a.example/{name}"] if name in PAGES else [])
    again = Answer(template, tools, talk[:1], params, engine.context)  # the last one, alone
    alone = [step for _, step in generate_answers(engine, again)]
    assert [step for step in alone if step.message] == [step for step in steps if step.message]


def test_chat_in_the_terminal_shows_calls_answers_and_sources(assistant):
    answered = (
        "  [search(query='Brem')]\n  [Brem is a river in the north. It flows for nine days.]\n"
        "  [from https://a.example/Brem]\nBrem is a river in the north.\n"
    )
    done = run_command("launch.chat", assistant, "--message", "What is Brem?")
    assert (done.returncode, done.stdout) == (0, f"> What is Brem?\n{answered}"), done.stderr
    lines = "\nWhat is Brem?\n/reset\nAdd 6 and 7.\n/system Be kind.\n/reset\n/quit\nWhat is Brem?\n"
    done = run_command("launch.chat", assistant, stdin=lines.encode())
    first, empty, *replies = done.stdout.split("\n> ")
    assert first.splitlines() == [
        f"{assistant} at step 200; tools: calculator, search",
        "/system TEXT sets the system message, /reset starts again, /quit ends.",
    ]
    assert [empty, *replies] == [
        "", answered, "(a new conversation)\n", "  [calculator(expression='6 + 7')]\n  [13]\nIt is 13.\n",
        "(a new conversation)\n", "(a new conversation)\n", "",
    ]  # fmt: skip
    done = run_command("launch.chat", assistant, *["--message", "What is Brem?"] * 3)
    forgotten = "  [the oldest messages are forgotten: the context has 160 tokens]\n"
    assert done.stdout == f"> What is Brem?\n{answered}" + f"> What is Brem?\n{forgotten}{answered}" * 2
    done = run_command("launch.chat", assistant, "--message", "x" * 999)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    done = run_command("launch.chat", assistant, stdin=b"x" * 999 + b"\nWhat is Brem?\n")
    assert "/reset starts a new conversation." in done.stdout and done.stdout.endswith(f"> {answered}\n> \n")


@pytest.mark.slow
def test_lm_eval_asks_in_conversations_and_runs_programs_if_allowed(assistant, tmp_path):
    asks = {"question": "What is Brem?", "answer": 'search {"query": "Brem"}'}  # a call is shown without <|call|>
    rows = [asks, {**asks, "answer": "Brem is a river."}]
    problem = {"prompt": "def f():\n", "test": "def check(f):\n    f()\n", "entry_point": "f"}
    write_jsonl(tmp_path / "data/talk/test.jsonl", rows)
    write_jsonl(tmp_path / "data/humaneval/test.jsonl", [problem])
    (tmp_path / "talk.yaml").write_text(
        "{task: talk, dataset_path: x/y, test_split: test, output_type: generate_until, doc_to_text: '{{question}}', "
        "doc_to_target: '{{answer}}', generation_kwargs: {until: []}, metric_list: [{metric: exact_match}]}"
    )
    run = tmp_path / "run"
    shutil.copytree(assistant, run)
    words = ("--data", tmp_path / "data", "--include-path", tmp_path, "--apply-chat-template")
    offline = os.environ | QUICK | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = run_command("launch.lm_eval", run, "--tasks", "talk", "humaneval", *words, "--run-code", environment=offline)
    assert done.returncode == 0, done.stderr
    (file,) = (run / "lm_eval").iterdir()
    found = json.loads(file.read_text("utf-8"))
    assert found["results"]["talk"]["exact_match,none"] == 0.5 and found["chat"] == {"talk": True, "humaneval": True}
    assert found["results"]["humaneval"]["pass@1,create_test"] == 0
    for base, task, message in (
        (run, "humaneval", "Allow it by --run-code"), (assistant.parent / "base", "talk", "no chat template")
    ):  # fmt: skip
        done = run_command("launch.lm_eval", base, "--tasks", task, *words, environment=offline)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_the_same_command_again_is_up_to_date(assistant):
    times = lambda: {path: path.stat().st_mtime_ns for path in (assistant / "checkpoints").rglob("*")}
    before = times()
    for words in ((), (assistant.parent / "base", CONFIG, "--chat.conversations", assistant.parent / "talks.jsonl")):
        done = run_command("launch.finetune", *(words or (assistant,)), *(("--workdir", assistant) if words else ()))
        assert done.stdout.splitlines()[:2] == ["conversations: up to date", "train: up to date"], done.stderr
    assert times() == before


@pytest.mark.slow
def test_two_processes_finetune_together(assistant, tmp_path):
    """As one process does, after it has written the conversations."""
    base, file = assistant.parent / "base", assistant.parent / "talks.jsonl"
    words = [base, CONFIG, "--chat.conversations", file, *SHORT, "--train.log-every", "1"]
    losses = {}
    for count in (2, 1):
        run, port = tmp_path / str(count), free_port()
        command = ["launch.finetune", *words, "--workdir", run]
        flags = f"{QUICK['XLA_FLAGS']} --xla_force_host_platform_device_count={2 // count}"
        start = lambda variables, *more, command=command, flags=flags: start_module(
            *command, *more, XLA_FLAGS=flags, **variables
        )
        together = [told_by("hand", index, count, port) if count > 1 else {} for index in range(count)]
        if count > 1:
            refused = [start(variables).communicate(timeout=HANG_SECONDS)[0] for variables in together[:1]]
            assert "first, with NUM_PROCESSES=1 and --until conversations" in refused[0]
            output, _ = start({}, "--until", "conversations").communicate(timeout=HANG_SECONDS)
            assert not (run / "checkpoints").exists() and "Traceback" not in output, output
        started = [start(variables) for variables in together]
        for process in started:
            output, _ = process.communicate(timeout=HANG_SECONDS)
            assert process.returncode == 0, output
        losses[count] = [row["loss"] for row in rows(run) if "loss" in row]
    np.testing.assert_allclose(losses[2], losses[1], rtol=1e-5)
    assert len(losses[1]) == 2


@pytest.mark.slow
def test_a_run_resumed_after_ctrl_c_ends_bit_for_bit_equal(assistant, tmp_path):
    base, file, run = assistant.parent / "base", assistant.parent / "talks.jsonl", tmp_path / "run"
    process = start_module("launch.finetune", base, CONFIG, "--workdir", run, "--chat.conversations", file)
    deadline = time.monotonic() + HANG_SECONDS
    while not ((heart := read_heartbeat(run / "heartbeat.json")) and heart["step"] >= 20):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130 and "Traceback" not in output, output
    assert "resuming" in finetune(base, run, file).stdout
    # The checkpoint to start from is in another folder; all else is equal.
    assert bits(run) == bits(assistant)


def test_changed_conversations_are_refused_with_both_values(assistant):
    base, file = assistant.parent / "base", assistant.parent / "talks.jsonl"
    text = file.read_bytes()
    try:
        file.write_bytes(text + b"\n")
        done = finetune(base, assistant, file, code=2)
        assert f"SHA-256 of {file}" in done.stderr and done.stderr.count("->") <= 1
        assert "another experiment" in done.stderr and "Nothing was changed" in done.stderr
    finally:
        file.write_bytes(text)
    done = finetune(base, assistant, file, "--chat.validation-fraction", "0.3", code=2)
    assert "0.2" in done.stderr and "0.3" in done.stderr


@pytest.mark.slow
def test_a_base_that_was_trained_further_is_refused_with_both_steps(assistant, tmp_path):
    base = Path(shutil.copytree(assistant.parent / "base", tmp_path / "base"))
    run, options = tmp_path / "run", SHORT
    finetune(base, run, assistant.parent / "talks.jsonl", *options)
    experiment = base_experiment()
    train(experiment.model, dataclasses.replace(experiment.train, steps=4), base)
    done = finetune(base, run, assistant.parent / "talks.jsonl", *options, code=2)
    assert "chat.step" in done.stderr and "2" in done.stderr and "4" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["tests/configs.py"],
            "chat.base is empty: launch.finetune starts from a trained run. Give it before the config",
        ),
        ([CONFIG], "missing a required argument: 'base'.*launch.finetune RUN"),
        (["BASE", "tests/configs.py"], r"get_config: too many positional arguments.*get_config\(base\)"),
        (["runs/nothing", CONFIG], "'runs/nothing' is not a run folder"),
        (
            ["s3://bucket/run", CONFIG],
            "'s3://bucket/run' is not a run folder on a disk.*copy a run in a bucket to a disk",
        ),
        (["BASE", CONFIG, "--chat.base", "s3://bucket/run"], "chat.base is s3://bucket/run; a run in a bucket must"),
        (["BASE", CONFIG, "--chat.conversations", "nothing.jsonl"], "names nothing.jsonl, where there is no file"),
        (["BASE", CONFIG, "--chat.conversations", "nothing*.jsonl"], r"names nothing\*.jsonl, where there is no file"),
        (["BASE", CONFIG, "--chat.conversations"], "there is nothing to finetune on"),
        (["BASE", CONFIG, "--chat.written-by", "no.such"], "chat.written_by is no.such"),
        (["BASE", CONFIG, "--chat.step", "77"], "no checkpoint of step 77 .* The steps there are 2"),
        (["BASE", CONFIG, "--chat.written-by", "os.path.exists"], "chat.written_by is os.path.exists"),
        (["BASE", CONFIG, "--from", "RUN"], "launch.finetune starts from chat.base"),
        (["CHARACTERS", CONFIG], "of the kind characters, lacks the special tokens .* Choose a chat.template"),
    ],
)
def test_what_cannot_be_finetuned_is_refused_with_a_remedy(assistant, tmp_path, words, message):
    base, file = assistant.parent / "base", assistant.parent / "talks.jsonl"
    if "CHARACTERS" in words:
        base = Path(shutil.copytree(base, tmp_path / "base"))
        shutil.rmtree(base / "tokenizer")
        save(CharacterTokenizer("\n" + "".join(map(chr, range(32, 127)))), base / "tokenizer")
    given = () if "--chat.conversations" in words else ("--chat.conversations", file)
    folders = {"BASE": str(base), "CHARACTERS": str(base), "RUN": str(assistant)}
    words = [folders.get(word, word) for word in words]
    done = run_command("launch.finetune", *words, "--workdir", tmp_path / "run", *given)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert re.search(message, done.stderr.replace("\n", " ")), done.stderr


@pytest.mark.fast_rows
@pytest.mark.parametrize("reserved", [True, False])
def test_rows_of_chat_tokens_start_from_the_mean_of_the_others(assistant, tmp_path, reserved):
    """Rows of reserved tokens, which all move in one direction while the base is trained; otherwise rows are added, to
    both tables of an untied model."""
    write_base(tmp_path / "base", *([SPECIAL_TOKENS] if reserved else []), tie_embeddings=reserved)
    finetune(tmp_path / "base", tmp_path / "run", assistant.parent / "talks.jsonl", *SHORT)
    base, tokenizer = load(tmp_path / "base/tokenizer"), load(tmp_path / "run/tokenizer")
    configs = [RunFolder(tmp_path / name).experiment().model for name in ("base", "run")]
    old, new = (
        {name: np.asarray(leaf) for name, leaf in named_leaves(restore_model(config, tmp_path / folder)).items()}
        for config, folder in zip(configs, ("base/checkpoints", "run/start"), strict=True)
    )
    ids = [tokenizer.special_tokens[name] for name in CHAT_TOKENS]
    tables = {"embedding": 0} if reserved else {"embedding": 0, "head.weight": 1}
    for name, leaf in old.items():
        if name not in tables:
            np.testing.assert_array_equal(new[name], leaf)
            continue
        axis, known = tables[name], np.delete(leaf, ids if reserved else [], axis=tables[name])
        np.testing.assert_array_equal(np.delete(new[name], ids, axis), known)
        added = np.take(new[name], ids, axis)
        np.testing.assert_allclose(added, np.broadcast_to(known.mean(axis, keepdims=True), added.shape), atol=1e-6)
    assert configs[1].vocab_size == configs[0].vocab_size + (0 if reserved else 6)
    if reserved:
        assert tokenizer.fingerprint == base.fingerprint and tokenizer.chat_template and not base.chat_template
        again = prepared(RunFolder(tmp_path / "run").experiment(), tmp_path / "again")
        assert again.train.start.checkpoint == str(tmp_path / "again/start/0")
        lora = with_values(again, {"train.lora": LoraConfig(rank=2)})
        with pytest.raises(UsageError, match="has never read 6 tokens of the chat template"):
            prepared(lora, tmp_path / "again")


OWN = """
def talks(base):
    assert (base / "tokenizer").is_dir()
    for number in range(40):
        yield {"messages": [{"role": "user", "content": str(number)}, {"role": "assistant", "content": "A number."}]}
    yield {"messages": []}

def number(base):
    return 3
"""


def test_a_function_of_the_user_writes_conversations(assistant, tmp_path):
    (module := tmp_path / "own_talks.py").write_text(OWN)
    environment = os.environ | QUICK | {"PYTHONPATH": str(tmp_path)}
    words = (assistant.parent / "base", CONFIG, "--workdir", tmp_path / "run", "--chat.written-by", "own_talks.talks")
    words += ("--chat.conversations", *SHORT)
    done = run_command("launch.finetune", *words, environment=environment)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run/conversations/written.jsonl").read_text().splitlines()) == 41
    assert "[no_messages]" in done.stdout and "conversations: left out, no_messages: 1\n" in done.stdout
    other = [str(word).replace(".talks", ".number").replace("/run", "/other") for word in words]
    done = run_command("launch.finetune", *other, environment=environment)
    assert done.returncode == 2 and "own_talks.number, which returned 3 and not conversations" in done.stderr
    module.write_text(OWN + "#")
    done = run_command("launch.finetune", *words, environment=environment)
    assert done.returncode == 2 and "own_talks" in done.stderr and "another experiment" in done.stderr


def test_other_commands_work_on_a_finetuned_run_or_refuse_it_by_name(assistant, tmp_path):
    run = Path(shutil.copytree(assistant, tmp_path / "assistant"))
    done = run_command("launch.evaluate", run)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "evaluation.json").read_text())["validation_loss"] < 0.1
    assert run_command("launch.evaluate", run).stdout.startswith("evaluate: up to date")
    done = run_command("launch.sample", run)
    assert done.returncode == 0 and (run / "samples/final.json").is_file(), done.stderr
    for script, stage in (("train", "train"), ("pretrain", "pages"), ("write_shards", "shards")):
        done = run_command(f"launch.{script}", run)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"is finetuned from {assistant.parent / 'base'}" in done.stderr, done.stderr
        assert f"{stage} is not for such runs" in done.stderr and "launch.finetune" in done.stderr


def test_the_report_has_curves_and_conversations_that_are_recorded_once(assistant, tmp_path):
    run = Path(shutil.copytree(assistant, tmp_path / "assistant"))

    def report(*options: str) -> tuple[str, dict]:
        done = run_command("launch.report", run, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout, recorded_in(run / "report/index.html")

    said, page = report()
    assert "chat.questions is empty" in said and page["pages"] == ["training"] and "chat{}" not in page
    _, page = report("--chat.questions", "What is Brem?", HOSTILE)
    assert page["pages"] == ["chat", "training"] and page["curves{}"]["train"]["loss"]
    first, second = page["chat{}"]["conversations"]
    question, call, result, answer = first
    assert (question["role"], question["content"]) == ("user", "What is Brem?")
    assert call["tool_calls"][0]["function"] == {"name": "search", "arguments": {"query": "Brem"}}
    assert result["content"] == PAGES["Brem"] and [one["url"] for one in result["sources"]] == [
        "https://a.example/Brem"
    ]
    assert (answer["content"], answer["finish_reason"]) == ("Brem is a river in the north.", "stop")
    assert second[0]["content"] == HOSTILE
    written = {path: path.stat().st_mtime_ns for path in (run / "samples/chat.jsonl", run / "report/index.html")}
    assert report()[0].startswith("report: up to date")
    assert written == {path: path.stat().st_mtime_ns for path in written}
    (run / "samples/chat.jsonl").unlink()
    assert report()[1]["chat{}"] == page["chat{}"]
    said, page = report("--chat.questions")
    assert "chat{}" not in page and not (run / "samples/chat.jsonl").exists()
    long = run_command("launch.report", run, "--chat.questions", "x" * 999)
    assert long.returncode == 2 and "chat.questions has 'xxx" in long.stderr and "Shorten it" in long.stderr


def test_the_report_is_made_again_with_another_model_and_other_questions(assistant, tmp_path):
    run = tmp_path / "run"
    finetune(assistant.parent / "base", run, assistant.parent / "talks.jsonl", *SHORT)
    for steps, question in (("2", "What is Brem?"), ("3", "What is Tolva?")):
        done = run_command("launch.finetune", run, "--train.steps", steps)
        assert done.returncode == 0, done.stderr
        done = run_command("launch.report", run, "--chat.questions", question)
        assert done.returncode == 0, done.stderr
        talks_there = recorded_in(run / "report/index.html")["chat{}"]["conversations"]
        assert [talk[0]["content"] for talk in talks_there] == [question]


@pytest.mark.slow
def test_the_config_for_own_conversations_trains_all_parameters_or_adapters(assistant, tmp_path):
    base, words = (
        assistant.parent / "base",
        ("configs/finetune.py", "--chat.conversations", assistant.parent / "talks.jsonl"),
    )
    steps = ("--train.steps", "2")
    for run, options in ((base, ()), (assistant, ("--train.lora.rank", "2"))):
        done = run_command("launch.finetune", run, *words, "--workdir", tmp_path / run.name, *steps, *options)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
        assert not (tmp_path / run.name / "conversations").exists(), "only the user's own"
    card = tmp_path / "export/README.md"
    done = run_command("launch.export", tmp_path / "base", tmp_path / "export")
    assert done.returncode == 0, done.stderr
    text = card.read_text("utf-8")
    assert "base-model" not in text and "base language model" not in text and "apply_chat_template" in text
    assert "was not trained to follow" not in text and "finetuned on conversations for 2 steps" in text


def test_the_folder_of_the_base_is_refused_as_workdir(assistant):
    with pytest.raises(UsageError, match=r"is the run to start from\. Nothing was changed"):
        prepared(RunFolder(assistant).experiment(), assistant.parent / "assistant/../base")


def test_conversations_are_marked_in_a_pipe(tmp_path):
    tokenizer = with_template(train_tokenizer(texts(9), tiny_experiment().tokenizer), "gristmill")
    save(tokenizer, tmp_path / "run/tokenizer")
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"messages": talk}))
    done = run_command("launch.inspect_conversations", tmp_path / "run", tmp_path / "talks.jsonl")
    marked = "<|endoftext|><|user|> a<|end|><|assistant|>{+ b<|end|>+}<|user|> c<|end|>"
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == marked, done.stdout + done.stderr
