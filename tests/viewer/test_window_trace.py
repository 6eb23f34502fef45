"""The window's searches, traces and recitations equal a naive scan of the documents; missing parts are reported."""

import contextlib
import json
import shutil
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.experiment.run_folder import Loaded
from lm.config import MixtureSource, TasksConfig
from lm.corpus_index.build import build_index
from lm.corpus_index.index import Document
from lm.corpus_index.lookups import overlaps, search_report
from lm.data.batches import BatchSource
from lm.data.records import document_tables
from lm.errors import InputError
from lm.fields import with_values
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.model.transformer import Transformer
from lm.parallel import one_device_mesh
from lm.serving.answers import to_json
from lm.serving.fields import ApiError, Cancelled, Fields
from lm.tokenizer import load
from lm.tokenizer.characters import CharacterTokenizer
from tests.corpus import texts, tiny_experiment, write_tokens
from tests.viewer.inspected import ask
from viewer.window import inspections as window
from viewer.window import trace
from viewer.window.window_run import WindowRun

HOSTILE = "<script>alert(1)</script> \u202e</textarea>"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> WindowRun:
    """An untrained model on 40 documents, without an index."""
    experiment = with_values(tiny_experiment(), {"model.context_length": 128, "shards.record_length": 128})
    folder = tmp_path_factory.mktemp("trace") / "run"
    write_tokens(folder, experiment)
    mesh = one_device_mesh(experiment.model)
    model = Transformer(experiment.model, jax.random.key(0))
    loaded = Loaded(experiment, load(folder / "tokenizer"), model, mesh, 0, "")
    return WindowRun(experiment, folder, loaded, "tiny")


@pytest.fixture(scope="module")
def indexed(run) -> WindowRun:
    folder = run.paths.root.parent / "indexed"
    shutil.copytree(run.paths.root, folder)
    build_index(folder / "tokens", folder / "corpus_index", part_tokens=4000)
    return WindowRun(run.experiment, folder, loaded_as(run), "tiny")


def sampled(run: WindowRun, number: int) -> Document:
    """One of four training documents."""
    document = trace.Corpus(run).index().sampled("train", number, 4, 64)
    assert document is not None
    return document


def test_a_run_without_an_index_names_the_command_and_only_records_that(run):
    about = ask(run, "corpus")
    assert not about["made"] and about["shards"] and "python -m launch.index_corpus" in about["message"]
    assert [name for name, _ in trace.to_record(run)] == ["corpus"]
    assert trace in window.ROOMS


SEARCHED = ["the miller carried a sack of grain", "Her sister", "zebra crossing", "was number 9.", "9.", ", and that"]


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("text", SEARCHED)
def test_a_text_is_counted_once_per_occurrence_in_the_tokens_of_the_documents(indexed, text):
    found = ask(indexed, "search", text=text, documents=20)
    documents = texts(40)
    ways = indexed.tokenizer.encode(" " + text), indexed.tokenizer.encode(text)
    naive = 0
    for row in map(indexed.tokenizer.encode, documents):
        naive += sum(any(row[:end][-len(ids) :] == ids for ids in ways) for end in range(1, len(row) + 1))
    assert sum(found["counts"].values()) == naive <= sum(one.count(text) for one in documents)
    for one in found["documents"]:
        assert one["match"].strip() == text
        assert one["before"] + one["match"] + one["after"] in documents[int(one["id"][5:-1])]


def test_a_passage_of_a_document_is_traced_to_it(indexed):
    document = sampled(indexed, 1)
    passage = texts(40)[int(document.id[5:-1])][:200]
    found = ask(indexed, "trace", text="Nobody said: " + passage, start=len("Nobody said: "))
    assert "".join(part["text"] for part in found["parts"]) == "Nobody said: " + passage
    for number, span in enumerate(found["spans"]):
        covered = "".join(part["text"] for part in found["parts"] if number in part["spans"])
        assert covered == span["text"] and 1 <= span["count"] <= 10 and span["start"] >= found["prompt_tokens"]
        for one in span["documents"]:
            assert one["split"] == "train" and one["match"] == span["text"]
    assert found["spans"]


@pytest.mark.slow
def test_recitation_length_equals_the_engines_greedy_generation(indexed):
    """One forward pass over the document gives the same result as greedy generation."""
    served = indexed.at(Fields({}, ()))
    engine = Engine(served.model, served.config, served.tokenizer, slots=1, mesh=served.mesh)
    greedy = engine.complete([GenerationRequest((served.tokenizer.bos_id,), SamplingParams(60, temperature=0.0))])[0]
    document = sampled(indexed, 0)
    for ids in (list(greedy.tokens), document.tokens.tolist()[:60]):  # it recites itself to the end
        ranks = served.score(ids, 1).ranks_N
        for one in trace.recitations(ranks == 1, [8, 16]):
            (said,) = engine.complete(
                [GenerationRequest((served.tokenizer.bos_id, *ids[: one.prefix]), SamplingParams(44, temperature=0.0))]
            )
            same = [a == b for a, b in zip(said.tokens, ids[one.prefix :], strict=False)]
            assert min(one.verbatim, 44) == ([*same, False].index(False))


def test_a_document_is_recited_token_by_token(indexed):
    answer = ask(indexed, "recite", split="train", document=0, of=4)
    document = sampled(indexed, 0)
    assert answer["document"]["number"] == document.number
    shown = [trace.visible(indexed.tokenizer.token_bytes(id)) for id in document.tokens.tolist()]
    assert [token["text"] for token in answer["tokens"]] == shown[:127]
    assert [row["prefix"] for row in answer["prefixes"]] == [8, 16, 32, 64]
    assert all("said" in token or token["right"] for token in answer["tokens"])


def test_recitations_by_hand():
    right = np.array([1] * 8 + [1, 1, 0] + [1] * 29 + [0] * 8, bool)
    (one, other) = trace.recitations(right, [8, 16])
    assert (one.next, one.right, one.verbatim) == (32, 31, 2)
    assert (other.next, other.right, other.verbatim) == (32, 24, 24)


def test_the_number_of_documents_of_an_answer_is_bounded(indexed, monkeypatch):
    monkeypatch.setattr(trace, "MOST_SHOWN", 30)
    text = " ".join(one[20:60] for one in texts(40)[:20])
    found = ask(indexed, "trace", text=text, share=1, most_count=10**9, documents=20)
    documents = [len(span["documents"]) for span in found["spans"]]
    assert sum(documents) == 30 and max(documents) > 1 and documents[-1] == 0 < found["spans"][-1]["count"]


@pytest.mark.parametrize("name", ["trace", "contamination", "write"])
def test_a_long_request_ends_when_the_client_is_gone(indexed, name):
    (one,) = [one for one in window.inspections_of(indexed) if one.name == name]
    left = threading.Event()
    left.set()
    with pytest.raises(Cancelled):
        one.answer(Fields({"text": "the miller carried a sack"}, one.known, left))


def test_a_damaged_table_of_documents_is_named(indexed, tmp_path):
    run = copied(indexed, tmp_path / "run")
    assert ask(run, "search", text="Her sister")["documents"]
    (table,) = map(Path, map(str, document_tables(run.paths.tokens)))
    for damage in (b"PAR1", table.read_bytes()[:-9]):
        table.write_bytes(damage)
        with pytest.raises(InputError, match=table.name):
            ask(run, "search", text="Her sister")
    table.unlink()
    with pytest.raises(InputError, match=table.name):
        ask(run, "search", text="Her sister")


def copied(run: WindowRun, folder: Path) -> WindowRun:
    return WindowRun(run.experiment, shutil.copytree(run.paths.root, folder), loaded_as(run), "tiny")


def loaded_as(run: WindowRun) -> Loaded:
    served = run.at(Fields({}, ()))
    return Loaded(run.experiment, run.tokenizer, served.model, served.mesh, 0, "")


def test_contamination_counts_the_ngrams_of_a_text_and_names_documents_of_each_span(indexed):
    known = texts(40)[1][:300]
    found = ask(indexed, "contamination", text=known + " Entirely other words zebra quagga okapi.", ngram=5)
    assert 0 < found["found"] < found["ngrams"]
    assert "".join(part["text"] for part in found["parts"]).startswith(known)
    assert {number for part in found["parts"] for number in part["spans"]} == set(range(len(found["spans"])))
    for number, span in enumerate(found["spans"]):
        marked = "".join(part["text"] for part in found["parts"] if number in part["spans"])
        assert 1 <= len(span["documents"]) <= 3 and all(
            marked.strip().startswith(one["match"].strip()) and one["split"] == "train" for one in span["documents"]
        )


def test_a_question_shorter_than_an_ngram_is_found_inside_a_document_too(indexed):
    for text in texts(40)[:4]:
        words = text.split(" ")
        short = next(" ".join(words[at : at + 2]) for at in range(5, 50) if words[at].isalpha())
        counted = ask(indexed, "search", text=short, split="train")["counts"]["train"]
        assert ask(indexed, "contamination", text=short)["found"] == (counted > 0)


def test_documents_of_a_mixture_name_their_folder(indexed, tmp_path):
    shutil.copytree(indexed.paths.root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/corpus_index")
    other = tmp_path / "other"
    shutil.copytree(indexed.paths.tokens, other)
    experiment = with_values(indexed.experiment, {"train.mixture": (MixtureSource(str(other), 1.0),)})
    run = WindowRun(experiment, tmp_path / "run", loaded_as(indexed), "tiny")
    build_index(run.paths.tokens, run.paths.corpus_index)
    assert "other, but the index was built with none" in ask(run, "corpus")["message"]
    build_index(run.paths.tokens, run.paths.corpus_index, train=experiment.train)
    about = ask(run, "corpus")
    assert about["sources"] == [str(other)]
    one, both = (ask(of, "search", text="Her sister", split="train", documents=20) for of in (indexed, run))
    assert both["counts"]["train"] == 2 * one["counts"]["train"] > 0
    names = {(document["source"], document["number"]) for document in both["documents"]}
    assert {source for source, _ in names} == {"", str(other)} and len(names) == len(both["documents"])
    sampled = [ask(run, "recite", split="train", document=number, of=2)["document"]["source"] for number in (0, 1)]
    assert sampled == ["", str(other)]


def test_examples_are_in_their_split(indexed):
    about = ask(indexed, "corpus")
    assert set(about["examples"]) == {"train", "val"}
    for split, text in about["examples"].items():
        found = ask(indexed, "contamination", text=text, split=split)
        assert found["found"] == found["ngrams"] > 5


def test_a_step_reads_its_share_of_the_training_text(indexed):
    train, context_length = indexed.experiment.train, indexed.experiment.model.context_length
    source = BatchSource({indexed.paths.tokens: 1.0}, "train", context_length, train.batch_size, 0, 1)
    steps = source.windows / train.batch_size  # of an epoch; the last window of a shard is padded
    (first, none), (last, epochs) = ask(indexed, "corpus")["epochs"]
    assert (first, none, last) == (0, 0, train.steps) and steps * epochs / last == pytest.approx(1, rel=0.02)


def of_sets(run: WindowRun, sets: tuple[str, ...], data: str) -> WindowRun:
    """The run, whose config names evaluation sets."""
    values = {
        "documents.decontamination.sets": sets, "evaluate.tasks": TasksConfig(data),
        "evaluate.evaluators": ("bits_per_byte", "piqa", "hellaswag"),
    }  # fmt: skip
    return WindowRun(with_values(run.experiment, values), run.paths.root, loaded_as(run), "tiny")


def test_local_evaluation_sets_of_the_config_are_offered_and_nothing_is_downloaded(indexed, tmp_path):
    rows = [{"question": f"Who is number {n}? {HOSTILE}", "choices": ["a miller", "the 2nd"]} for n in range(250)]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "piqa.jsonl").write_text(
        '{"goal": "Grind.", "sol1": "Use a mill.", "sol2": "Use a spoon.", "id": "p"}\n'
    )
    sets = (str(tmp_path / "q*.jsonl"), "hf://datasets/a/b/c.jsonl", str(tmp_path / "none.jsonl"))
    run = of_sets(indexed, sets=sets, data=str(tmp_path))
    told = ask(run, "evaluation_sets")
    assert [(one["set"], one["name"], one["option"]) for one in told["sets"]] == [
        (0, "quiz", "documents.decontamination.sets"), (1, "piqa", "evaluate.tasks.data"),
    ]  # fmt: skip
    assert [any(word in one for one in told["left_out"]) for word in ("hf://", "none.jsonl", "hellaswag")] == [True] * 3
    answer = ask(run, "evaluation_sets", set=1)
    assert answer["examples"] == [{"number": 0, "id": "p", "texts": ["Grind. Use a mill.", "Grind. Use a spoon."]}]
    assert answer["next"] is None
    numbers, offset = [], 0
    while offset is not None:
        answer = ask(run, "evaluation_sets", set=0, offset=offset)
        numbers += [one["number"] for one in answer["examples"]]
        offset = answer["next"]
    assert numbers == list(range(200)) and answer["examples"][0]["texts"][0] == f"{rows[180]['question']} a miller"
    with pytest.raises(ApiError, match="from 0 to 1"):
        ask(run, "evaluation_sets", set=2)
    (tmp_path / "quiz.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"quiz.jsonl, line 1, is no JSON"):
        ask(run, "evaluation_sets", set=0)


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("search", {"text": "a" * 20_001}, "text"),
        ("search", {"text": "zq" * 2000}, "text"),
        ("search", {"tokens": [1] * 1025}, "tokens"),
        ("search", {"tokens": [320]}, "tokens"),
        ("search", {"tokens": [True]}, "tokens"),
        ("search", {"text": "a", "split": "test"}, "split"),
        ("search", {"text": "a", "documents": 21}, "documents"),
        ("search", {"text": "a", "context": 251}, "context"),
        ("trace", {"text": "abc", "start": 4}, "start"),
        ("trace", {"text": "abc", "share": 1.5}, "share"),
        ("recite", {"document": 16}, "document"),
        ("recite", {"of": 65}, "of"),
        ("recite", {"step": 3}, "step"),
        ("contamination", {"text": "a", "ngram": 0}, "ngram"),
        ("contamination", {"text": "a", "documents": 21}, "documents"),
        ("evaluation_sets", {"set": 0}, "set"),
        ("evaluation_sets", {"offset": 200}, "offset"),
    ],
)
def test_out_of_range_fields_are_rejected_by_name(indexed, name, fields, field):
    with pytest.raises(ApiError) as refused:
        ask(indexed, name, **fields)
    assert refused.value.status == 400 and refused.value.param == field


def test_a_character_outside_the_vocabulary_is_reported_as_an_error_of_the_text(indexed, monkeypatch):
    monkeypatch.setattr(type(indexed.tokenizer), "encode", CharacterTokenizer("\nab").encode)
    for name in ("search", "trace", "contamination"):
        with pytest.raises(ApiError, match="character 'z'") as refused:
            ask(indexed, name, text="abz")
        assert refused.value.param == "text"


WRONG = (True, -2, -1.5, 1e999, 10**30, {}, ["train"], {"a": [[]]}, "\ud800")


def test_a_field_of_a_wrong_type_is_answered_or_rejected_and_never_crashes_an_inspection(indexed):
    for one in window.inspections_of(indexed):
        for field in one.known:
            for value in WRONG[:-1] if field == "text" else WRONG:  # a text may be half a character
                with contextlib.suppress(InputError):
                    try:
                        to_json(one.answer(Fields({field: value}, one.known)))
                    except ApiError as refused:
                        assert refused.status == 400, (one.name, field, value)


@pytest.mark.parametrize("text", ["", " ", HOSTILE, "\ud800", "ab" * 200, "\x00"])
def test_any_text_is_answered(indexed, text):
    assert ask(indexed, "search", text=text)["counts"]
    assert ask(indexed, "trace", text=text)["tokens"] >= 0
    assert ask(indexed, "contamination", text=text)["ngrams"] >= 0


def test_a_rebuilt_index_is_reopened_and_damage_is_reported(indexed, tmp_path):
    run = copied(indexed, tmp_path / "run")
    assert ask(run, "corpus")["made"]
    room = {one.name: one for one in trace.inspections(run)}["corpus"]
    asked = lambda: room.answer(Fields({}, ()))
    assert asked()["made"]
    (run.paths.corpus_index / "index.json").write_text("{")
    assert "index.json is damaged" in str(asked()["message"])
    shutil.rmtree(run.paths.corpus_index)
    build_index(run.paths.tokens, run.paths.corpus_index)
    assert asked()["made"]
    manifest = run.paths.tokens / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    assert "out of date" in ask(run, "corpus")["message"]


def test_the_exported_page_answers_from_recorded_data(indexed):
    known = {one.name: one for one in trace.inspections(indexed)}
    asked = list(trace.to_record(indexed))
    assert {name for name, _ in asked} >= {"corpus", "search", "recite", "contamination"}
    for name, fields in asked:
        to_json(known[name].answer(Fields(fields, known[name].known)))


def test_the_terminal_prints_the_same(indexed, tmp_path):
    run = indexed.paths.root
    counts = ask(indexed, "search", text="Her sister")["counts"]
    told = search_report(run, "Her sister", 3)
    assert f"{counts['train']:,} times in train, {counts['val']:,} times in val" in told and len(told.split("\n")) == 4
    document = sampled(indexed, 1)
    known = texts(40)[int(document.id[5:-1])][:200]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"q": text}) + "\n" for text in ("okapi " * 9, known)))
    *lines, last = overlaps(run, tmp_path / "q.jsonl", "q", 13)
    assert len(lines) == 1 and "line 2: " in lines[0] and last.startswith("1 of 2 texts have an n-gram of 13 tokens")
    with pytest.raises(InputError, match=r"line 1, is not an object with a field 'text'.*--field"):
        list(overlaps(run, tmp_path / "q.jsonl", "text", 13))


def test_an_exported_page_does_not_contain_the_path_of_the_run(run):
    said = json.dumps(window.record(run, (trace,)))
    assert "no index of the corpus in tiny/corpus_index" in said and str(run.paths.root) not in said
    here = str(run.paths.root)
    text = {"text": f"{here}/a", "name": f"in {here}/a"}
    told = {"documents": [text], "more": {"missing": f"no {here}/b"}, "folders": [{"name": f"{here}/tokens"}]}
    expected = {"documents": [text], "more": {"missing": "no tiny/b"}, "folders": [{"name": "tiny/tokens"}]}
    assert window.without_place(told, run) == expected
