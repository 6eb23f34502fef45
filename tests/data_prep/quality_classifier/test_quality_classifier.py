import dataclasses
import gzip
import itertools
import json
import math
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.recipes.gristmill import QUALITY_CLASSIFIER
from data_prep.config import QualityTrainingConfig
from data_prep.parquet import write_rows
from data_prep.quality_classifier import QualityClassifier, histogram, load_model, merge, threshold
from data_prep.quality_classifier.examples import is_held_out
from data_prep.quality_classifier.model import (
    MULTIPLIER,
    hash_word,
    model_sha256,
    ngram_buckets,
    save_model,
    word_hashes,
)
from data_prep.quality_classifier.train import area_under_curve, train_quality_classifier
from data_prep.text.words import split_words
from lm.errors import InputError, UsageError

BITS = 14
SCORES = st.lists(st.integers(0, 10**6).map(lambda number: number / 10**6) | st.sampled_from([0.0, 0.5, 1.0]))


def texts_of(topic: str, count: int, seed: int, words: int = 40) -> list[str]:
    """Random texts of words that both topics share, and a few of each topic."""
    generator = random.Random(seed)
    vocabulary = [f"common{n}" for n in range(200)] + [f"{topic}{n}" for n in range(30)]
    return [" ".join(generator.choices(vocabulary, k=words)) + "." for _ in range(count)]


def write_jsonl(path: Path, texts: list[str]) -> str:
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def config(good: str, other: str, **changes) -> QualityTrainingConfig:
    base = dataclasses.replace(QUALITY_CLASSIFIER.training, hash_bits=BITS, held_out_share=0.2)
    return dataclasses.replace(base, good=(good,), other=(other,), **changes)


@pytest.fixture
def sets(tmp_path) -> tuple[str, str]:
    return (
        write_jsonl(tmp_path / "good.jsonl", texts_of("fine", 200, seed=1)),
        write_jsonl(tmp_path / "other.jsonl", texts_of("web", 300, seed=2)),
    )


def quiet(line: str) -> None:
    pass


# Features


def test_hashes_are_the_same_on_every_machine():
    assert hash_word("the") == hash_word("The") == 2800107122
    assert ngram_buckets(word_hashes(["the", "end"]), 20).tolist() == [562716, 799754, 611695]


@given(st.lists(st.text(min_size=1, max_size=5), max_size=8), st.integers(10, 26))
def test_buckets_equal_those_of_the_definition(words, bits):
    hashes = [hash_word(word) for word in words]
    keys = hashes + [first * 2**32 + second for first, second in itertools.pairwise(hashes)]
    expected = [key * int(MULTIPLIER) % 2**64 // 2 ** (64 - bits) for key in keys]
    assert ngram_buckets(word_hashes(words), bits).tolist() == expected


# Histograms and the threshold


@given(SCORES, st.floats(0.001, 1))
def test_the_threshold_is_the_highest_that_keeps_the_share(scores, keep_share):
    lowest = threshold(histogram(scores), keep_share)
    wanted = keep_share * len(scores)
    assert sum(score >= lowest for score in scores) >= wanted - 1e-9
    assert sum(score > lowest for score in scores) < wanted or not scores
    assert lowest in scores or not scores


def test_a_share_is_an_exact_decimal():
    scores = [n / 100 for n in range(100)]
    for keep_share, kept in ((0.07, 7), (0.29, 29), (1.0, 100), (0.001, 1)):  # as floats 0.07 * 100 is above 7
        lowest = threshold(histogram(scores), keep_share)
        assert sum(score >= lowest for score in scores) == kept
    assert threshold(histogram([]), 0.5) == threshold(merge([]), 0.5) == 0.0


@settings(max_examples=25, deadline=None)  # a merge counts over all possible scores
@given(st.lists(SCORES, max_size=5), st.randoms())
def test_histograms_add_up_in_any_order_and_grouping(files, generator):
    whole = histogram([score for file in files for score in file])
    counted = [histogram(file) for file in files]
    generator.shuffle(counted)
    cut = len(counted) // 2
    assert np.array_equal(merge(counted), whole)
    assert np.array_equal(merge([merge(counted[:cut]), merge(counted[cut:])]), whole)
    stored = [np.array(json.loads(json.dumps(one.tolist())), np.int64) for one in counted]
    assert np.array_equal(merge(stored), whole)


def test_scores_and_shares_out_of_range_are_rejected():
    for wrong in (float("nan"), -0.1, 1.1, float("inf")):
        with pytest.raises(UsageError, match="from 0 to 1"):
            histogram([0.5, wrong])
    for wrong in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(UsageError, match="keep_share"):
            dataclasses.replace(QUALITY_CLASSIFIER, keep_share=wrong)


@given(SCORES.filter(len), SCORES.filter(len))
def test_the_auc_is_the_share_of_correctly_ordered_pairs(good, other):
    pairs = [(a > b) + (a == b) / 2 for a in good for b in other]
    assert area_under_curve(np.array(good), np.array(other)) == pytest.approx(sum(pairs) / len(pairs))


# The model


def random_model(bits: int = 12) -> QualityClassifier:
    return QualityClassifier(np.random.default_rng(0).integers(-(2**20), 2**20, 2**bits).astype(np.int32), 12345)


@given(st.text(st.sampled_from("abc .,'-中\ud800"), max_size=60))
def test_a_score_is_the_sigmoid_of_the_mean_weight(text):
    model = random_model()
    score = model.score(text)
    buckets = ngram_buckets(word_hashes(split_words(text)), 12).tolist()
    if not buckets:
        assert score == 0.0
        return
    logit = (sum(int(model.weights[bucket]) for bucket in buckets) / len(buckets) + model.bias) / 2**16
    assert score == pytest.approx(1 / (1 + math.exp(-logit)), abs=6e-7)
    assert score == round(score, 6) and 0 <= score <= 1


@pytest.mark.parametrize("weight", [2**31 - 1, -(2**31)])
def test_the_largest_weights_do_not_overflow(weight):
    model = QualityClassifier(np.full(2**10, weight, np.int32), weight)
    assert model.score("word " * 100_000) == (1.0 if weight > 0 else 0.0)


def test_a_saved_model_is_restored_and_saved_with_the_same_bytes(tmp_path):
    model = random_model()
    for name in ("one", "two"):
        save_model(model, {"held_out": None}, tmp_path / name)
    for file in ("model.npz", "model.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    read = load_model(str(tmp_path / "one"))
    assert np.array_equal(read.weights, model.weights) and read.bias == model.bias
    assert load_model(str(tmp_path / "one")) is read
    assert len(model_sha256(tmp_path / "one")) == 64


def test_missing_and_damaged_models_are_rejected_with_the_fix(tmp_path):
    def refused(name: str, damage, match: str) -> None:
        save_model(random_model(), {}, tmp_path / name)
        damage(tmp_path / name)
        with pytest.raises(InputError, match=match) as caught:
            load_model(tmp_path / name)
        assert "launch.train_quality_classifier" in str(caught.value)

    def flip(folder: Path) -> None:
        data = bytearray((folder / "model.npz").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "model.npz").write_bytes(data)

    def say(**changes):
        def change(folder: Path) -> None:
            path = folder / "model.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))

        return change

    with pytest.raises(InputError, match="no quality classifier"):
        load_model(tmp_path / "nowhere")
    refused("flipped", flip, "does not match its model.json")
    refused("without weights", lambda folder: (folder / "model.npz").unlink(), "cannot be read")
    refused("no json", lambda folder: (folder / "model.json").write_text("{"), "damaged")
    refused("empty json", lambda folder: (folder / "model.json").write_text("{}"), "damaged")
    refused("a later format", say(format=2), "format 2")
    refused("another word split", say(features_sha256="0"), "another word splitter, so")


# Training


def test_a_model_learns_to_separate_the_sets(tmp_path, sets):
    training = train_quality_classifier(config(*sets), tmp_path / "model", quiet)
    assert training["held_out"]["area_under_curve"] > 0.99
    assert sum(sum(count.values()) for count in training["documents"].values()) == 500
    model = load_model(tmp_path / "model")
    good, other = (np.mean([model.score(text) for text in texts_of(t, 50, seed=3)]) for t in ("fine", "web"))
    assert good > 0.8 and other < 0.2
    told = json.loads((tmp_path / "model/model.json").read_text())
    assert told["held_out"] == training["held_out"]
    assert [file["name"] for file in told["files"]["good"]] == ["good.jsonl"]


def plain_training(labelled: list[tuple[str, bool]], training: QualityTrainingConfig) -> tuple[dict[int, float], float]:
    """The same training by its definition: dense weights, one document at a time."""
    weights, squares, bias, bias_square = {}, {}, 0.0, 1e-20
    count = {label: sum(other == label for _, other in labelled) for label in (True, False)}
    for epoch in range(training.epochs):
        order = np.random.default_rng((training.seed, epoch)).permutation(len(labelled))
        for start in range(0, len(order), training.batch_size):
            batch = [labelled[number] for number in order[start : start + training.batch_size]]
            slopes, bias_slope = {}, 0.0
            for text, label in batch:
                buckets = ngram_buckets(word_hashes(split_words(text)), training.hash_bits).tolist()
                logit = sum(weights.get(bucket, 0.0) for bucket in buckets) / len(buckets) + bias
                error = (1 / (1 + math.exp(-logit)) - label) * len(labelled) / 2 / count[label] / len(batch)
                bias_slope += error
                for bucket in buckets:
                    slopes[bucket] = slopes.get(bucket, 0.0) + error / len(buckets)
            for bucket, slope in slopes.items():
                squares[bucket] = squares.get(bucket, 1e-20) + slope**2
                weights[bucket] = weights.get(bucket, 0.0) - training.learning_rate * slope / squares[bucket] ** 0.5
            bias_square += bias_slope**2
            bias -= training.learning_rate * bias_slope / bias_square**0.5
    return weights, bias


def test_training_equals_the_plain_algorithm(tmp_path):
    good, other = texts_of("fine", 12, 1, words=8), texts_of("web", 7, 2, words=5)
    files = write_jsonl(tmp_path / "good.jsonl", good), write_jsonl(tmp_path / "other.jsonl", other)
    once_told = config(*files, held_out_share=0.0, epochs=2)
    assert train_quality_classifier(once_told, tmp_path / "model", quiet)["held_out"] is None
    model = load_model(tmp_path / "model")
    weights, bias = plain_training([(text, True) for text in good] + [(text, False) for text in other], once_told)
    dense = np.zeros(2**BITS)
    dense[list(weights)] = list(weights.values())
    assert np.abs(dense).max() > 1
    assert np.allclose(model.weights / 2**16, dense, atol=2**-16)
    assert model.bias / 2**16 == pytest.approx(bias, abs=2**-16)


def test_training_is_reproducible_for_any_packing_and_depends_on_the_seed(tmp_path, sets):
    texts = texts_of("fine", 200, seed=1)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    table = tmp_path / "good.parquet"
    write_rows([(table, {"id": n, "text": text}) for n, text in enumerate(texts)], {table: schema}, scratch=tmp_path)
    packed = str(table), write_jsonl(tmp_path / "other.jsonl.gz", texts_of("web", 300, seed=2))
    for name, files, seed in (("one", sets, 0), ("two", sets, 0), ("packed", packed, 0), ("seed", sets, 1)):
        train_quality_classifier(config(*files, seed=seed, epochs=1), tmp_path / name, quiet)
    one, two, packed_bytes, other = (
        (tmp_path / name / "model.npz").read_bytes() for name in ("one", "two", "packed", "seed")
    )
    assert one == two == packed_bytes != other
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["model.json", "model.npz"]


def test_the_configured_number_of_documents_is_sampled_from_each_set(tmp_path, sets):
    lines: list[str] = []
    training = train_quality_classifier(config(*sets, documents_per_set=50), tmp_path / "model", lines.append)
    assert {name: sum(count.values()) for name, count in training["documents"].items()} == {"good": 50, "other": 50}
    assert "epoch 1 of 5" in lines[0]


def test_equal_texts_are_held_out_together_and_in_the_configured_share():
    texts = texts_of("fine", 1000, seed=1, words=3)
    assert [is_held_out(text, 0.2) for text in texts] == [is_held_out(text, 0.2) for text in texts]
    assert 150 < sum(is_held_out(text, 0.2) for text in texts) < 250
    assert not any(is_held_out(text, 0) for text in texts)


def test_rows_without_a_text_are_skipped_and_reported(tmp_path, sets):
    with Path(sets[0]).open("a") as file:
        file.write('{"text": null}\n{"title": "no text"}\nno json\n{"text": "\u200b"}\n')
    lines: list[str] = []
    training = train_quality_classifier(config(*sets, epochs=1), tmp_path / "model", lines.append)
    assert sum(training["documents"]["good"].values()) in (200, 201)
    assert "3 rows of the set good skipped; first good.jsonl, line 201" in lines[0]


def test_unusable_training_sets_are_rejected(tmp_path, sets):
    good, other = sets

    def refused(error: type[Exception], match: str, good: str, other: str, **changes) -> None:
        with pytest.raises(error, match=match):
            train_quality_classifier(config(good, other, **changes), tmp_path / "model", quiet)
        assert not (tmp_path / "model/model.json").exists()

    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(good).read_bytes())
    empty = write_jsonl(tmp_path / "empty.jsonl", ["", " \n"])
    refused(UsageError, "are the same file", good, good)
    refused(UsageError, "are the same file", good, str(copy))
    refused(UsageError, "training.other: .* matches no file", good, str(tmp_path / "*.csv"))
    refused(InputError, "The set other leaves no document", good, empty)
    refused(InputError, "The set good leaves no document .* held out", good, other, held_out_share=0.9999999)
    refused(UsageError, "learning_rate = 1e\\+30", good, other, learning_rate=1e30)
    with pytest.raises(UsageError, match="good is empty"):
        train_quality_classifier(dataclasses.replace(config(*sets), good=()), tmp_path / "model", quiet)


@pytest.mark.parametrize(
    "changes",
    [
        {"documents_per_set": 0}, {"epochs": 0}, {"batch_size": 0}, {"hash_bits": 9}, {"hash_bits": 27},
        {"held_out_share": 1.0}, {"held_out_share": -0.1}, {"learning_rate": 0.0}, {"learning_rate": float("nan")},
        {"seed": -1},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_settings_are_rejected_by_name(changes):
    with pytest.raises(UsageError, match=f"documents.quality_classifier.training.{next(iter(changes))}"):
        dataclasses.replace(QUALITY_CLASSIFIER.training, **changes)
