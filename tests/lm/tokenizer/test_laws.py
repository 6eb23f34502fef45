"""Every kind of tokenizer: texts round-trip, names of special tokens are text by default, save and pickle preserve
it."""

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.config import END_OF_TEXT, TokenizerConfig
from lm.errors import InputError
from lm.evaluation.held_out import byte_lengths
from lm.tokenizer import Tokenizer, load, save, train_tokenizer
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from lm.tokenizer.published import load_published
from lm.tokenizer.sentencepiece import BLANK
from tests.lm.tokenizer.test_hugging_face_library import smollm2_like
from tests.run_files import LICENSE

LETTERS = "".join(sorted({*LICENSE, *f" {BLANK}\n\r\t\0ab<>1é中\ufffd\U0001f600{END_OF_TEXT}"}))
SIZES = {"bpe": 500, "sentencepiece_bpe": 500, "sentencepiece_unigram": 500, "characters": len(LETTERS)}
TOKENIZERS: dict[str, Tokenizer] = {
    name: train_tokenizer([LICENSE, LETTERS], TokenizerConfig(size, "cl100k", 10**7, algorithm=name))  # ty: ignore[invalid-argument-type]
    for name, size in SIZES.items()
}
TOKENIZERS["library"] = LibraryTokenizer.from_json(smollm2_like().to_str().encode(), END_OF_TEXT)
LONG = ("a", "A", "!", "1", "aA", "'s", "中", BLANK)
"""Repeated to long texts without a place to split them."""
every = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
texts = st.text(alphabet=st.sampled_from(LETTERS)) | st.text(alphabet=f" {BLANK}\n\r\t\0ab<>1")
any_text = texts | st.text()


@pytest.mark.fast_rows
@every
def test_a_text_round_trips_whole_and_as_bytes(tokenizer):
    @settings(max_examples=200, deadline=None)
    @given(texts if tokenizer.kind == "characters" else any_text)
    def check(text):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode_bytes(ids) == text.encode() == b"".join(map(tokenizer.token_bytes, ids))
        assert byte_lengths(tokenizer)[ids].sum() == len(text.encode())
        assert tokenizer.encode_array(text).tolist() == ids
        assert not {*ids} & {*tokenizer.special_tokens.values()}

    check()
    names = f"a{END_OF_TEXT} <unk>b<0x41>" if tokenizer.kind != "characters" else "a"
    for text in (names, " " * 1_100_000, "\n " * 550_000, *(one * 50_000 for one in LONG if {*one} <= {*LETTERS})):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and tokenizer.encode_array(text).tolist() == ids


@every
def test_lone_surrogates_become_replacement_characters(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b\ud83d\ude00")) == "a\ufffdb\U0001f600"


@every
def test_a_batch_equals_its_texts(tokenizer):
    batch = [*LICENSE.split("\n\n"), "", "   ", f"a{BLANK}b"]
    assert tokenizer.encode_batch(batch) == [tokenizer.encode(text) for text in batch]
    assert tokenizer.encode_batch([]) == []


@every
def test_special_tokens_are_only_encoded_on_request(tokenizer):
    name = next(iter(tokenizer.special_tokens), "")
    if name:
        id = tokenizer.special_tokens[name]
        assert tokenizer.encode(f"a{name} b", [name]) == [*tokenizer.encode("a"), id, *tokenizer.encode(" b")]
        assert tokenizer.token_bytes(id) == name.encode()
    with pytest.raises(ValueError, match=r"'<\|y\|>' is not a special token of this vocabulary, which has "):
        tokenizer.encode("a", ["<|y|>"])


@every
def test_an_id_outside_the_vocabulary_is_rejected(tokenizer):
    for id in (-1, tokenizer.vocab_size, 10**9):
        with pytest.raises(ValueError, match=f"{id} is outside the vocabulary of {tokenizer.vocab_size}"):
            tokenizer.decode([1, id])


@every
def test_it_is_saved_loaded_and_sent_to_workers(tokenizer, tmp_path):
    for name in ("a", "b"):
        save(tokenizer, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    again = load(tmp_path / "a"), pickle.loads(pickle.dumps(tokenizer)), load_published(str(tmp_path / "a"))
    for copy in again:
        assert copy == tokenizer and copy.fingerprint == tokenizer.fingerprint
        assert copy.encode(LICENSE) == tokenizer.encode(LICENSE)
        assert (copy.documents, copy.characters) == (tokenizer.documents, tokenizer.characters)
    meta = json.loads((tmp_path / "a/meta.json").read_text())
    (tmp_path / "a/meta.json").write_text(json.dumps(meta | {"fingerprint": "0" * 64}))
    with pytest.raises(InputError, match=f"its fingerprint is {tokenizer.fingerprint}, but meta.json says 0000"):
        load(tmp_path / "a")
