"""Data of the window's page "Tokens"; tests/window drives the page itself."""

import base64

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.shards.tokenize import document_files
from launch.serve import named_tokenizers
from lm.config import TokenizerConfig
from lm.errors import UsageError
from lm.serving.fields import ApiError, Fields
from lm.tokenizer import save, train_bpe, train_tokenizer
from tests.corpus import texts
from viewer.tokenizer.samples import KINDS, LANGUAGES
from viewer.training_data import has_letter
from viewer.window.tokens import (
    EXAMPLES,
    IN_PAGE,
    MOST_CHARACTERS,
    asked_for,
    comparison,
    encoded,
    longest,
    sampled,
    text_ids,
    vocabulary,
)

TEXTS = texts(40)
BPE = train_bpe(TEXTS, TokenizerConfig(320, "cl100k", 10**6))
CHARACTERS = train_tokenizer(TEXTS, TokenizerConfig(len({"\n", *"".join(TEXTS)}), "gpt2", 10**6, "characters"))


def ids_of(answer: dict) -> list[int]:
    assert answer["ids"]["type"] == "int32"
    ids = np.frombuffer(base64.b64decode(answer["ids"]["data"]), "<i4")
    assert answer["ids"]["shape"] == [len(ids)]
    return ids.tolist()


def test_a_vocabulary_is_enough_to_reconstruct_any_text():
    for tokenizer in (BPE, CHARACTERS):
        answer = vocabulary("mine", tokenizer)
        assert tokenizer.kind in IN_PAGE and answer["kind"] == tokenizer.kind and answer["name"] == "mine"
        ids = tokenizer.encode(TEXTS[0])
        assert bytes.fromhex("".join(answer["bytes"][id] for id in ids)).decode() == TEXTS[0]
        assert len(answer["tokens"]) == len(answer["bytes"]) == tokenizer.vocab_size
        assert answer["special"] == dict(tokenizer.special_tokens)
    assert vocabulary("mine", BPE)["pattern"] == BPE.pattern and "pattern" not in vocabulary("mine", CHARACTERS)


def test_encode_gives_the_tokenizers_ids_and_rejects_texts_it_cannot_encode():
    assert ids_of(encoded(BPE, Fields({"text": TEXTS[1]}, ("text",)))) == BPE.encode(TEXTS[1])
    assert ids_of(encoded(BPE, Fields({}, ("text",)))) == []
    with pytest.raises(ApiError, match=rf"\(20,001 characters\); it must be of at most {MOST_CHARACTERS:,} characters"):
        encoded(BPE, Fields({"text": "x" * (MOST_CHARACTERS + 1)}, ("text",)))
    with pytest.raises(ApiError, match="字"):
        encoded(CHARACTERS, Fields({"text": "字"}, ("text",)))


def test_a_tokenizer_is_requested_by_name():
    named = {"mine": BPE, "letters": CHARACTERS}
    assert asked_for(named, Fields({}, ("tokenizer",))) == ("mine", BPE)
    assert asked_for(named, Fields({"tokenizer": "letters"}, ("tokenizer",))) == ("letters", CHARACTERS)
    with pytest.raises(ApiError, match="one of mine, letters; launch"):
        asked_for(named, Fields({"tokenizer": "gpt5"}, ("tokenizer",)))


def test_the_server_gets_other_tokenizers_by_their_folders(tmp_path):
    for run, tokenizer in (("a", BPE), ("b/a", CHARACTERS)):
        save(tokenizer, tmp_path / run / "tokenizer")
    found = named_tokenizers((str(tmp_path / "a"), str(tmp_path / "b/a")))
    assert found == {"a": BPE, str(tmp_path / "b/a"): CHARACTERS}
    with pytest.raises(UsageError, match="There is no tokenizer 'gone'"):
        named_tokenizers(("gone",))


def test_tokens_of_sample_texts_are_counted_for_each_tokenizer():
    found, tokenizers = comparison({"mine": BPE, "letters": CHARACTERS}), (BPE, CHARACTERS)
    assert found["tokenizers"] == ["mine", "letters"] and found["corpora"] == []
    for samples, name in ((LANGUAGES, "languages"), (KINDS, "kinds")):
        for one, text in zip(found[name], samples.values(), strict=True):
            letters = len(text) if set(text) <= {*"".join(TEXTS), "\n"} else 0
            assert (one["bytes"], one["tokens"]) == (len(text.encode()), [len(BPE.encode(text)), letters])
        assert [one["name"] for one in found[name]] == list(samples)
    for lists, tokenizer in zip(found["lists"], tokenizers, strict=True):
        assert lists["longest"] == longest(tokenizer, EXAMPLES // 2, has_letter)
        assert not any(has_letter(tokenizer.token_bytes(id)) for id in lists["without_letters"])


def test_every_token_of_the_documents_is_counted_once():
    documents = [*((text, "en") for text in TEXTS), (KINDS["numbers"], ""), ("", "de"), ("", "")]
    (found,) = comparison({"mine": BPE}, documents, 99)["corpora"]
    ids = [BPE.encode(text) for text, _ in documents]
    counts = [sum(one.count(id) for one in ids) for id in range(BPE.vocab_size)]
    sizes = [len(text.encode()) for text, _ in documents]
    assert (found["documents"], found["read"], found["bytes"], found["tokens"]) == (
        99,
        len(documents),
        sum(sizes),
        sum(counts),
    )
    assert found["by_language"] == [
        ["en", len(TEXTS), sum(sizes[:-3]) / sum(map(len, ids[:-3]))],
        ["unknown", 2, sizes[-3] / len(ids[-3])],
        ["de", 1, 0.0],
    ]
    special = {*BPE.special_tokens.values()}
    used = sorted((count, -id) for id, count in enumerate(counts) if count and id not in special)
    assert found["rarest"] == [[-id, count] for count, id in used[:EXAMPLES]]  # ties: the last merged first
    unused = [id for id, count in enumerate(counts) if not count and id not in special]
    assert found["unused"] == len(unused) and {*found["unused_examples"]} <= {*unused}


def test_longest_tokens_first_and_no_special_ones():
    assert text_ids(BPE) == list(range(319)) and BPE.bos_id == 319
    ids = longest(BPE, 1000, bool)
    assert sorted(ids) == text_ids(BPE) and ids == sorted(ids, key=lambda id: (-len(BPE.token_bytes(id)), id))
    assert longest(BPE, 5, lambda token: token.isdigit()) == [BPE.ranks[b"%d" % digit] for digit in range(5)]


@pytest.mark.parametrize(("wanted", "read"), [(1, 1), (3, 3), (7, 7), (8, 8), (100, 8)])
def test_documents_are_sampled_from_all_files(tmp_path, wanted, read):
    rows = [{"language": "en", "text": text} for text in TEXTS[:8]]
    for file in range(3):
        pq.write_table(pa.Table.from_pylist(rows[file::3]), tmp_path / f"{file:05d}.parquet")
    found = sampled(document_files(tmp_path), wanted, 100)
    assert len(found) == len({text for text, _ in found}) == read
    assert all(len(text) <= 100 for text, _ in found)
    assert wanted < 3 or {(text[:100], "en") for text in TEXTS[:3]} <= {*found}
