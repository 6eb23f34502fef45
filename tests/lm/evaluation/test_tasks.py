"""Tasks: scores equal those of lm-eval on the same examples in every layout."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.config import TasksConfig
from lm.errors import InputError, UsageError
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.evaluators import TASKS, make_evaluators, task_files
from lm.evaluation.tasks.benchmarks import cleaned
from lm.evaluation.tasks.hub import hub_files
from lm.evaluation.tasks.sources import SOURCES, local_files, read_rows
from lm.evaluation.tasks.task import Task
from lm.model.transformer import Transformer
from lm.parallel import one_device_mesh
from lm.tokenizer import load
from tests.corpus import tiny_experiment
from tests.lm.evaluation.task_files import PARADIGMS, write_jsonl, write_parquet, write_tasks
from tests.lm.model_configs import initial_model
from tests.loopback_hub import LoopbackHub, serving

MODEL = replace(tiny_experiment().model, layers=1, context_length=128, initial_std=0.2)
COUNT = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("data"), COUNT)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return initial_model(MODEL, 4)


@pytest.fixture(scope="module")
def tokenizer(tokens):
    return load(tokens / "tokenizer")


def task(name: str, tokenizer, folder: Path | str, limit: int = 0) -> Task:
    config = EvaluatorConfig(MODEL, tokenizer, Path(), 8, 64, tasks=TasksConfig(str(folder), limit))
    made = make_evaluators((name,), config, "evaluate.evaluators")[name]
    assert isinstance(made, Task)
    return made


@given(st.text("[] a\n", max_size=30))
def test_hellaswag_markup_is_removed_as_in_lm_eval(text):
    expected = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")
    assert cleaned(text) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # from other packages
def test_scores_and_their_errors_equal_those_of_lm_eval(data, model, tokenizer, monkeypatch, tmp_path):
    import datasets.config
    import lm_eval.tasks
    from lm_eval.evaluator import simple_evaluate

    from lm.evaluation.harness import HarnessLM
    from lm.evaluation.harness_tasks import Definitions

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    shipped = Path(lm_eval.tasks.__file__).parent
    groups = ("hellaswag", "lambada", "arc", "winogrande", "piqa", "blimp")
    folders: list[str | Path] = [shipped / name for name in groups]
    manager = lm_eval.tasks.TaskManager(include_path=folders, include_defaults=False)
    manager._factory = Definitions(str(data))
    mesh = one_device_mesh(MODEL)
    names = [name for name in TASKS if name != "blimp"] + [f"blimp_{one}" for one in PARADIGMS]
    harness = HarnessLM(model, MODEL, tokenizer, mesh, 8)
    found = simple_evaluate(harness, tasks=names, task_manager=manager, bootstrap_iters=0, log_samples=False)
    results = found["results"]
    different = set()
    for name in TASKS:
        for key, figure in task(name, tokenizer, data).score(model, mesh).items():
            if name == "blimp":
                expected = sum(results[f"blimp_{one}"]["acc,none"] for one in PARADIGMS) / len(PARADIGMS)
            else:
                expected = results[name][f"{key},none"]
            assert figure.value == pytest.approx(expected, rel=1e-5), (name, key)
            different.add(round(figure.value, 4))
            if key != "perplexity" and name != "blimp":
                wrong = results[name][f"{key},none"]
                assert figure.standard_error == pytest.approx(math.sqrt(wrong * (1 - wrong) / (COUNT - 1)))
    assert len(different) > 5  # otherwise the test compares nothing


def texts_of(found: Task) -> list:
    return [(question.pairs, question.right) for question in found.questions]


def test_the_same_examples_are_read_in_every_layout(data, tokenizer, tmp_path):
    rows = list(read_rows(local_files(SOURCES["hellaswag"], data, "x")[0]))
    expected = texts_of(task("hellaswag", tokenizer, data))
    assert len(expected) == COUNT
    for name in (
        "hellaswag_val.jsonl", "HellaSwag.jsonl.bz2", "hellaswag/default/validation/0000.parquet",
        "Rowan--hellaswag/validation.jsonl", "hellaswag/data/validation-00000-of-00001.parquet",
    ):  # fmt: skip
        folder = tmp_path / name.replace("/", "-")
        (write_parquet if name.endswith(".parquet") else write_jsonl)(folder / name, rows)
        write_jsonl(folder / "hellaswag_train.jsonl", rows[:1])
        assert texts_of(task("hellaswag", tokenizer, folder)) == expected, name
    assert len(task_files(TASKS, TasksConfig(str(data)), "x")) == len(TASKS) + len(PARADIGMS)  # Winogrande has two


def test_a_limit_applies_to_each_paradigm(data, tokenizer):
    assert texts_of(task("arc_easy", tokenizer, data, 5)) == texts_of(task("arc_easy", tokenizer, data))[:5]
    blimp = task("blimp", tokenizer, data, 2)
    assert sorted(blimp.paradigms) == sorted([*PARADIGMS, *PARADIGMS])  # ty: ignore[missing-attribute]


def test_other_formats_of_examples_are_read(tokenizer, tmp_path):
    (tmp_path / "hellaswag_val.txt").write_text("Sowing: A man sits. he\n2\nruns.\nsleeps.\nsings.\neats.\n")
    ((pairs, right, _),) = task("hellaswag", tokenizer, tmp_path).questions
    assert pairs[2] == ("Sowing: A man sits. he", " sings.") and right == 2
    write_jsonl(tmp_path / "arc_easy.jsonl", [{"query": "Question: Why?", "choices": ["a", "b"], "gold": 1}])
    assert task("arc_easy", tokenizer, tmp_path).questions[0].pairs[1] == ("Question: Why?\nAnswer:", " b")
    row = {"context_options": ["Ann so Ann", "Ann so Bea"], "continuation": "won.", "gold": 0}
    write_jsonl(tmp_path / "winogrande.jsonl", [row])
    assert task("winogrande", tokenizer, tmp_path).questions[0].pairs[1] == ("Ann so Bea", " won.")


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("piqa", {"goal": "a", "sol1": "b"}, "row 0, is not an example of piqa: KeyError: 'sol2'"),
        ("piqa", {"goal": "a", "sol1": "b", "sol2": "c", "label": -1}, "the right answer is -1, of 2"),
        ("winogrande", {"sentence": "a", "option1": "b", "option2": "c", "answer": "1"}, "has no blank"),
        ("arc_easy", {"question": "a", "choices": {"text": ["b"], "label": ["A"]}, "answerKey": "Z"}, "ValueError"),
        ("lambada_openai", {"text": 3}, "AttributeError"),
        ("blimp", {"sentence_good": "a", "sentence_bad": "b"}, "KeyError: 'UID'"),
        ("hellaswag", {"query": "a", "choices": None, "gold": 0}, "TypeError"),
    ],
)
def test_invalid_rows_are_named(tokenizer, tmp_path, name, row, words):
    write_jsonl(tmp_path / f"{SOURCES[name].file}.jsonl", [row])
    with pytest.raises(InputError, match=words):
        task(name, tokenizer, tmp_path)


def test_damaged_files_are_named(tokenizer, tmp_path):
    file = tmp_path / "piqa.jsonl"
    damaged = {b"{\n": "line 1, is no JSON", b"[1]\n": "instead of an object", b"\xff\n": "utf-8", b"": "no example"}
    for content, words in damaged.items():
        file.write_bytes(content)
        with pytest.raises(InputError, match=words):
            task("piqa", tokenizer, tmp_path)
    file.rename(tmp_path / "piqa.jsonl.bz2").write_bytes(b"no bzip2")
    with pytest.raises(InputError, match="cannot be read"):
        task("piqa", tokenizer, tmp_path)
    (tmp_path / "hellaswag.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a complete Parquet"):
        task("hellaswag", tokenizer, tmp_path)


def test_missing_examples_are_rejected_before_reading(tmp_path):
    for config, words in (
        (TasksConfig(), "task piqa needs its examples, but train.tasks.data is empty"),
        (TasksConfig(str(tmp_path / "no")), "is not a folder"),
        (TasksConfig(str(tmp_path)), "has no examples of baber/piqa: neither baber/piqa/"),
    ):
        with pytest.raises(UsageError, match=words):
            task_files(("validation", "piqa"), config, "train.tasks.data")
    task_files(("validation",), TasksConfig(), "train.tasks.data")
    with pytest.raises(UsageError, match="s3://a' is neither a folder nor hf://"):
        TasksConfig("s3://a")


def test_hub_files_are_downloaded_once(data, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("GRISTMILL_STORAGE_RETRIES", "0")
    read = lambda name: (data / f"{name}-00000-of-00001.parquet").read_bytes()
    files = {
        "hellaswag": {"default/validation/0000.parquet": read("Rowan/hellaswag/data/validation"), "README.md": b""},
        "blimp": {f"{one}/train/0000.parquet": read(f"nyu-mll/blimp/{one}/train") for one in PARADIGMS},
    }
    for name, there in files.items():
        source = SOURCES[name]
        hub = LoopbackHub(there, "secret", repository=source.repository, revision="refs/convert/parquet")
        with serving(hub) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            assert texts_of(task(name, tokenizer, "hf://")) == texts_of(task(name, tokenizer, data))
            count = len(hub.requests)
            assert [len(pq.read_table(path)) for path in hub_files(source)] == [COUNT] * (
                len(there) - (name != "blimp")
            )
            assert len(hub.requests) == count
            with pytest.raises(InputError, match=r"baber/piqa cannot be downloaded: .* 404 .*put the data set into a"):
                task("piqa", tokenizer, "hf://")
            with pytest.raises(UsageError, match="has no files of the split other of "):
                hub_files(replace(source, split="other"))
            shutil.rmtree(tmp_path / "gristmill")
            monkeypatch.setenv("HF_TOKEN", "wrong")
            with pytest.raises(InputError, match="set HF_TOKEN to a token with access"):
                hub_files(source)
            monkeypatch.setenv("HF_TOKEN", "secret")
