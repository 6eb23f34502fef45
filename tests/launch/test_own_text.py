"""One command turns your own texts into a model, from any files; an added file does not change a run."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.experiment import parse_run
from configs.experiment.run_folder import RunFolder
from data_prep.sources.sizes import input_sizes
from launch.release.imported import write_run
from launch.stages.command import fit_to_data
from lm.config import TokenizerConfig
from lm.errors import InputError, UsageError
from lm.storage import write_atomically
from lm.tokenizer import train_tokenizer
from tests.commands import run_command
from tests.corpus import texts
from tests.launch.test_release import CONFIGS, source_of
from tests.run_files import REPOSITORY
from tests.train_runs import rows

CONFIG = str(REPOSITORY / "configs/own_text.py")
SMALL = ["--model.layers", "1", "--model.width", "32", "--model.context-length", "32", "--train.sample-every", "0"]
"""Options that make the model quick to compile; each is set explicitly, and the rules adapt to it."""


def pretrain(*words, code=0):
    """Output of launch.pretrain, stdout and stderr, as one process on one device."""
    done = run_command("launch.pretrain", *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def write_mixed(folder, seed=0):
    """26 texts as .txt, .md, JSON lines and Parquet, and five unreadable files."""
    documents = texts(40, seed)
    (folder / "deep").mkdir(parents=True)
    for number in range(8):
        (folder / f"{number:02d}.txt").write_text(documents[number])
        (folder / f"deep/{number:02d}.md").write_text(f"# Note {number}\n\n{documents[20 + number]}")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents[30:35]))
    pq.write_table(pa.table({"text": documents[35:]}), folder / "table.parquet")
    (folder / "letter.docx").write_bytes(b"PK")
    (folder / "untitled.md").touch()
    (folder / "latin.txt").write_bytes(b"caf\xe9 " * 50)
    (folder / "numbers.md").write_text("1 2 3 4 5\n" * 50)


@pytest.mark.slow
def test_a_mixed_folder_becomes_a_model_and_one_more_note_changes_nothing(tmp_path):
    notes, run = tmp_path / "notes", tmp_path / "run"
    write_mixed(notes)
    words = [CONFIG, "--pages.tables", notes, "--workdir", run, "--train.steps", "6", *SMALL]
    said = pretrain(*words)
    assert "train.optimizer.warmup_steps = 1: " in said and "shards.held_out = ends: " in said
    assert "letter.docx" in said and "untitled.md" in said and "latin.txt is not UTF-8" in said
    summary = json.loads((run / "summary.json").read_text())
    assert summary and (run / "report/index.html").is_file() and (run / "samples/final.json").is_file()
    documents = pa.concat_tables(pq.read_table(path) for path in sorted((run / "documents").glob("*.parquet")))
    assert documents.num_rows == 27  # all of the texts, and the note of numbers
    config = (run / "config.json").read_bytes()

    for number in range(30):  # enough for the rules to choose other values
        (notes / f"late {number}.md").write_text("\n".join(texts(9, seed=number + 1)))
    assert input_sizes(RunFolder(run).experiment().pages).bytes > 3 * json.loads(config)["fitted_to"][0]
    said = pretrain(*words)
    assert "30 new (late 0.md, late 1.md, late 10.md and 27 more). The run keeps what it has read." in said
    assert said.count("up to date") == 10 and (run / "config.json").read_bytes() == config
    assert pretrain(run).count("up to date") == 10  # unchanged, from its own config.json
    # Other files that are named explicitly are not skipped.
    assert " of another experiment" in pretrain(CONFIG, "--pages.tables", notes / "deep", *words[3:], code=2)


def test_stages_after_until_are_skipped(tmp_path):
    (tmp_path / "one.txt").write_text("\n\n".join(texts(9)))
    words = [CONFIG, "--pages.tables", tmp_path / "one.txt", "--workdir", tmp_path / "run"]
    # An impossible model does not prevent documents.
    huge = ["--model.layers", "900", "--model.width", "65536"]
    said = pretrain(*words, *huge, "--until", "documents")
    assert list((tmp_path / "run/documents").glob("*.parquet")) and not (tmp_path / "run/tokenizer").exists()
    assert said.rstrip().endswith(f"Open {tmp_path / 'run'}")
    said = pretrain(*words, "--until", "document", code=2)
    assert "--until is 'document'; choose one of pages, texts, documents," in said


def test_without_texts_the_missing_option_is_named():
    command = parse_run("launch.pretrain", "", [CONFIG])
    with pytest.raises(UsageError, match=r"--pages\.tables notes/"):
        fit_to_data(command)


def test_the_amount_of_text_in_many_files_is_known_before_they_are_read(tmp_path):
    for number, text in enumerate(documents := texts(300)):
        (tmp_path / f"{number}.md").write_text(text)
    found = input_sizes(parse_run("launch.pretrain", "", [CONFIG, "--pages.tables", str(tmp_path)]).experiment.pages)
    assert found == pytest.approx((sum(map(len, documents)), 300), rel=0.05)


def test_damaged_tables_contain_no_text_and_raise_no_traceback(tmp_path):
    pages = parse_run("launch.pretrain", "", [CONFIG, "--pages.tables", str(tmp_path)]).experiment.pages
    for name, content in {"a.parquet": b"PAR1 and no more", "b.jsonl": b"{" * 10_000, "c.jsonl": b'{"a": 1}\n'}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"a\.parquet"):  # names a file and the reason
        input_sizes(pages)
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "b.jsonl").write_text(" ")
    with pytest.raises(InputError, match=r"c\.jsonl has no text in any of its 1 rows: .* Set pages\.text_field"):
        input_sizes(pages)
    (tmp_path / "c.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_text('{\n  "text": "One."\n}\n')
    with pytest.raises(InputError, match=r"b\.jsonl: no row can be read\. .* Write one JSON object per line"):
        input_sizes(pages)
    (tmp_path / "b.jsonl").write_text(" ")
    with pytest.raises(InputError, match=r"has no text; files read: 1\. Give others\."):
        input_sizes(pages)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run folder as launch.import_model writes it, with a random model."""
    tokenizer = train_tokenizer(texts(40), TokenizerConfig(300, "gpt2", 1_000_000))
    run = tmp_path_factory.mktemp("imported") / "run"
    write_run(source_of(CONFIGS["llama"], tokenizer), run, "numbers")
    return run


def test_training_of_an_imported_model_depends_on_the_amount_of_text(imported, tmp_path):
    """1 MB of text is read twice, in small batches; in the model's own folder nothing is adapted."""
    (tmp_path / "one.txt").write_text("\n\n".join(texts(700)))
    words = [str(imported), "--pages.tables", str(tmp_path / "one.txt")]
    command = parse_run("launch.pretrain", "", [*words, "--workdir", str(tmp_path / "new")])
    experiment = fit_to_data(command)
    size, _ = experiment.fitted_to
    assert size > 900_000
    train, context = experiment.train, experiment.model.context_length
    assert train.steps >= 100 and train.steps * train.batch_size * context < 2.5 * size
    assert 0 < train.optimizer.warmup_steps < train.steps // 10
    assert experiment.model == command.experiment.model and experiment.tokenizer == command.experiment.tokenizer
    assert fit_to_data(parse_run("launch.sample", "", words)).fitted_to == ()


@pytest.mark.slow
def test_an_imported_model_is_trained_on_own_texts_by_the_printed_command(imported, tmp_path):
    (tmp_path / "one.txt").write_text("\n\n".join(texts(20)))
    pretrain(imported, "--workdir", tmp_path / "new", "--pages.tables", tmp_path / "one.txt")
    assert (tmp_path / "new/report/index.html").is_file()


@pytest.mark.slow
def test_the_defaults_end_near_the_best_loss_of_the_run(tmp_path):
    """The number of steps is large enough to learn and small enough not to overfit. Real notes end within 2 % of the
    best loss (docs/benchmarks.md); these sentences are random, so their order is noise."""
    for number, text in enumerate(texts(20)):
        write_atomically(tmp_path / f"notes/{number}.md", text)
    pretrain(CONFIG, "--pages.tables", tmp_path / "notes", "--workdir", tmp_path / "run")
    losses = [row["validation_loss"] for row in rows(tmp_path / "run") if "validation_loss" in row]
    assert losses[-1] < 0.3 * math.log(512) and losses[-1] < 1.25 * min(losses)
