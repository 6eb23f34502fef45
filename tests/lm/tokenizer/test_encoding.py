"""Tokenizer: every text and every byte string comes back, special names are plain text, the fingerprint notices all."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.config import TokenizerConfig
from lm.tokenizer import Tokenizer, train_bpe
from lm.tokenizer.encoding import END_OF_TEXT, LONGEST_RUN, sections

LICENSE = (Path(__file__).parents[3] / "LICENSE").read_text(encoding="utf-8")
TOKENIZER = train_bpe([LICENSE], TokenizerConfig(500, "cl100k", 10**7))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_text_comes_back(text):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode_bytes(ids) == text.encode() == b"".join(map(TOKENIZER.token_bytes, ids))
    assert TOKENIZER.end_of_text not in ids


@given(st.binary())
def test_every_byte_string_is_a_decoding(data):
    ids = [TOKENIZER.tokens.index(bytes([byte])) for byte in data]
    assert TOKENIZER.decode_bytes(ids) == data
    assert TOKENIZER.decode(ids) == data.decode(errors="replace")


def test_a_real_text_is_shorter_in_tokens():
    assert len(TOKENIZER.encode(LICENSE)) < len(LICENSE) / 2


def test_special_names_in_text_are_plain_text():
    ids = TOKENIZER.encode(f"a{END_OF_TEXT}b")
    assert TOKENIZER.end_of_text not in ids
    assert TOKENIZER.decode([*ids, TOKENIZER.end_of_text]) == f"a{END_OF_TEXT}b{END_OF_TEXT}"


def test_lone_surrogates_become_replacement_characters():
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a\ufffdb"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_is_its_texts(threads):
    texts = [*LICENSE.split("\n\n"), "", " " * 3]
    assert TOKENIZER.encode_batch(texts, threads) == [TOKENIZER.encode(text) for text in texts]
    assert TOKENIZER.encode_batch([], threads) == []


@pytest.mark.parametrize("id", [-1, 500, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(id):
    with pytest.raises(ValueError, match=rf"{id} is outside the vocabulary of 500"):
        TOKENIZER.decode([65, id])


def test_pickles_with_and_without_a_made_encoding():
    TOKENIZER.encode("x")
    copy = pickle.loads(pickle.dumps(TOKENIZER))
    assert copy == TOKENIZER
    assert copy.encode(LICENSE) == TOKENIZER.encode(LICENSE)
    assert (copy.documents, copy.characters) == (1, len(LICENSE))


def test_fingerprint_covers_all_that_decides_ids():
    tokens = list(TOKENIZER.tokens)
    tokens[300], tokens[301] = tokens[301], tokens[300]
    others = [
        replace(TOKENIZER, tokens=tuple(tokens)),
        replace(TOKENIZER, tokens=TOKENIZER.tokens[:-1]),
        replace(TOKENIZER, pattern=TOKENIZER.pattern + "|x"),
        replace(TOKENIZER, special_tokens=(END_OF_TEXT, "<|x|>")),
        replace(TOKENIZER, tokens=TOKENIZER.tokens[:-1], special_tokens=("<|x|>", END_OF_TEXT)),
    ]
    assert len({TOKENIZER.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert replace(TOKENIZER, documents=7).fingerprint == TOKENIZER.fingerprint


def test_vocabularies_that_cannot_encode_all_bytes_are_refused():
    with pytest.raises(ValueError, match="1 single bytes are missing"):
        Tokenizer(TOKENIZER.pattern, TOKENIZER.tokens[1:])
    with pytest.raises(ValueError, match="1 tokens occur twice"):
        Tokenizer(TOKENIZER.pattern, (*TOKENIZER.tokens, b"a"))


@pytest.mark.parametrize("blank", [" ", "\n ", "\x1c", "\u3000"])
def test_endless_white_space_is_encoded(blank):
    text = "a" + blank * (1_100_000 // len(blank)) + "b"
    assert TOKENIZER.decode_bytes(TOKENIZER.encode(text)) == text.encode()


@pytest.mark.parametrize("letter", ["a", "A", "!", "1", "\u0301", "aA", "'s", "东"])
def test_endless_words_are_encoded(letter):
    text = letter * 100_000
    tokenizer = train_bpe([LICENSE], TokenizerConfig(300, "o200k", 10**7))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_sections_cut_long_runs_alone():
    text = "a " + " " * (2 * LONGEST_RUN) + "b" * (2 * LONGEST_RUN) + "\n" * LONGEST_RUN
    parts = list(sections(text))
    assert "".join(parts) == text
    assert [len(part) for part in parts] == [1 + LONGEST_RUN, LONGEST_RUN, 1 + 3 * LONGEST_RUN]
    assert list(sections("")) == [""]
