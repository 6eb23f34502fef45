"""The index of a mixture has all training documents and the run's validation documents, with their names."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lm.config import MixtureSource, TrainConfig
from lm.corpus_index.build import build_index
from lm.corpus_index.format import settings_of
from lm.corpus_index.index import CorpusIndex
from lm.errors import InputError, UsageError
from lm.storage import Url, write_atomically
from tests.corpus import tiny_experiment
from tests.lm.corpus_index.corpora import naive_places, occurrences, write_run
from tests.object_store import QUICK, serving, variables

OWN, HELD_OUT = [[1, 2, 3, 4], [5, 6, 7], [1, 2, 9]], [[1, 2, 8]]
OTHERS = {"b.example": [[3, 1, 2, 3, 4], [6, 6]], "c.example": [[1, 2, 3], [7, 1, 2, 3, 1, 2]]}
PASSAGES = [[1, 2], [1, 2, 3], [6], [7], [9], [8], [2, 3, 4], [4, 5]]


@pytest.fixture
def mixed(tmp_path) -> tuple[Path, TrainConfig]:
    """(the run, its config): its own shards and those of two other runs, which also have validation documents."""
    run = write_run(tmp_path / "run", OWN, HELD_OUT)
    for site, documents in OTHERS.items():
        write_run(tmp_path / site, documents, [[1, 2, 3, 4]], length=6, site=site)
    return run, config(tmp_path, 1.0, *OTHERS)


def config(folder: Path, own_weight: float, *names: str) -> TrainConfig:
    mixture = tuple(MixtureSource(str(folder / name / "tokens"), 0.5) for name in names)
    return replace(tiny_experiment().train, mixture=mixture, own_weight=own_weight)


def built(run: Path, train: TrainConfig, part_tokens: int = 9) -> CorpusIndex:
    build_index(run / "tokens", run / "corpus_index", part_tokens=part_tokens, train=train)
    return CorpusIndex(run, train)


def found(index: CorpusIndex, passage: list[int], split: str) -> list[tuple[str, str, int]]:
    """(source, URL, offset) of each occurrence."""
    return sorted((own.source, own.url, offset) for own, offset in occurrences(index, passage, split))


def expected(train: TrainConfig, passage: list[int]) -> list[tuple[str, str, int]]:
    texts = {("", "a.example"): OWN} if train.own_weight else {}
    texts |= {(one.tokens, Path(one.tokens).parent.name): OTHERS[Path(one.tokens).parent.name] for one in train.mixture}
    return sorted(
        (source, f"https://{site}/{number}", offset)
        for (source, site), documents in texts.items()
        for number, offset in naive_places(documents, passage)
    )


@pytest.mark.parametrize("own_weight", [1.0, 0.0])
def test_every_passage_of_the_mixture_is_found_with_its_names(mixed, own_weight):
    run, train = mixed
    train = replace(train, own_weight=own_weight)
    index = built(run, train)
    for passage in PASSAGES:
        assert found(index, passage, "train") == expected(train, passage)
        assert len(found(index, passage, "val")) == len(naive_places(HELD_OUT, passage))
    trained = [document for documents in (OWN if own_weight else [], *OTHERS.values()) for document in documents]
    assert index.splits()["train"] == {"tokens": sum(map(len, trained)), "documents": len(trained)}
    assert [index.counts[token] for token in range(1, 10)] == [sum(d.count(t) for d in trained) for t in range(1, 10)]
    sampled = {(one.source, one.number) for n in range(20) if (one := index.sampled("train", n, 20, 1))}
    assert {source for source, _ in sampled} == {source for source, *_ in expected(train, [1])}


def test_the_index_works_without_the_mixtures_folders_but_not_if_they_change(mixed, tmp_path):
    run, train = mixed
    places = found(built(run, train), [1, 2], "train")
    shutil.rmtree(tmp_path / "b.example")
    assert found(CorpusIndex(run, train), [1, 2], "train") == places
    manifest = tmp_path / "c.example/tokens/manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(InputError, match=r"out of date: .*c.example/tokens changed.*launch.index_corpus"):
        CorpusIndex(run, train)


def test_an_index_of_another_mixture_is_out_of_date(mixed, tmp_path):
    run, train = mixed
    alone = config(tmp_path, 1.0)
    assert settings_of(alone).keys() == {"format", "part_tokens"} < settings_of(train).keys()
    built(run, alone)
    with pytest.raises(InputError, match=r"mixture has .*b.example/tokens, .*c.example/tokens, but .* built with none"):
        CorpusIndex(run, train)
    built(run, train)
    with pytest.raises(InputError, match=r"out of date: train.mixture has none, but"):
        CorpusIndex(run, alone)


def test_damaged_names_and_other_tokenizers_are_rejected(mixed, tmp_path):
    run, train = mixed
    index = built(run, train)
    index.check()
    names = run / "corpus_index/names-2.parquet"
    names.write_bytes(names.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"names-2.parquet is damaged"):
        index.check()
    with pytest.raises(InputError, match=r"names-2.parquet cannot be read.*launch.index_corpus"):
        found(CorpusIndex(run, train), [7], "train")
    write_run(tmp_path / "d.example", [[1, 2]], fingerprint="cd" * 32)
    with pytest.raises(UsageError, match=r"d.example/tokens were written with tokenizer cd"):
        built(run, config(tmp_path, 1.0, "d.example"))


@pytest.mark.slow
def test_lookups_do_not_read_an_indexed_bucket(mixed, tmp_path):
    run, train = mixed
    with serving() as store, variables(store.environment() | QUICK | {"XDG_CACHE_HOME": str(tmp_path / "cache")}):
        store.bucket("shards")
        for path in sorted((tmp_path / "b.example/tokens").iterdir()):
            write_atomically(Url(f"s3://shards/tokens/{path.name}"), path.read_bytes())
        train = replace(train, mixture=(MixtureSource("s3://shards/tokens", 0.5), train.mixture[1]))
        built(run, train)
        asked = len(store.requests)
        index = CorpusIndex(run, train)
        for passage in PASSAGES:
            urls = [place[1:] for place in found(index, passage, "train")]
            assert sorted(urls) == sorted(place[1:] for place in expected(mixed[1], passage))
        assert {"s3://shards/tokens"} < {source for source, *_ in found(index, [1, 2], "train")}
        assert len(store.requests) == asked
