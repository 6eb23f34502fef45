"""Data of the window's page "Tokens"; tests/window drives the page itself."""

import base64

import numpy as np
import pytest

from launch.serve import named_tokenizers
from lm.config import TokenizerConfig
from lm.errors import UsageError
from lm.serving.fields import ApiError, Fields
from lm.tokenizer import save, train_bpe, train_tokenizer
from tests.corpus import texts
from viewer.tokenizer.vocabulary import IN_PAGE, MOST_CHARACTERS, vocabulary
from viewer.window.tokens import asked_for, encoded

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
    with pytest.raises(ApiError, match=rf"at most {MOST_CHARACTERS:,} characters here, and it has 20,001"):
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
