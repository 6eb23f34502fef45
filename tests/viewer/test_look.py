"""The tokens of a text are its bytes, and each is counted once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.config import TokenizerConfig
from lm.tokenizer import train_bpe
from viewer.tokenizer.look import Usage, count_usage, cut, longest, never_used, rarest, text_ids
from viewer.tokenizer.samples import KINDS, LANGUAGES

REPOSITORY = Path(__file__).parents[2]
LICENSE = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
TOKENIZER = train_bpe([LICENSE, *LANGUAGES.values()], TokenizerConfig(900, "cl100k", 10**7))
TEXTS = {**LANGUAGES, **KINDS}


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=120))
def test_pieces_are_the_bytes_of_the_text_in_order(text):
    pieces = cut(text, TOKENIZER)
    assert b"".join(piece.bytes for piece in pieces) == text.encode("utf-8", "replace")
    assert [piece.id for piece in pieces] == TOKENIZER.encode(text)


@pytest.mark.parametrize("texts_at_once", [1, 3, 256])
def test_every_token_is_counted_once(texts_at_once):
    texts = [*TEXTS.values(), ""]
    usage = count_usage(texts, TOKENIZER, texts_at_once)
    ids = [id for text in texts for id in TOKENIZER.encode(text)]
    assert usage.counts.tolist() == [ids.count(id) for id in range(TOKENIZER.vocab_size)]
    assert usage.tokens == len(ids) and usage.texts == len(texts)
    assert usage.text_bytes == sum(len(text.encode()) for text in texts) == len(TOKENIZER.decode_bytes(ids))
    assert usage.bytes_per_token == usage.text_bytes / len(ids)
    halves = count_usage(texts[:5], TOKENIZER) + count_usage(texts[5:], TOKENIZER)
    assert (halves.counts == usage.counts).all()
    assert (halves.texts, halves.text_bytes) == (usage.texts, usage.text_bytes)


def test_no_documents_mean_no_usage():
    usage = count_usage([], TOKENIZER)
    assert (usage.tokens, usage.texts, usage.bytes_per_token) == (0, 0, 0.0)
    assert never_used(usage, TOKENIZER) == text_ids(TOKENIZER) and rarest(usage, TOKENIZER, 5) == []


def test_special_tokens_have_no_text():
    assert text_ids(TOKENIZER) == list(range(899))
    assert TOKENIZER.bos_id not in longest(TOKENIZER, 1000)


def test_used_and_unused_tokens_are_all_tokens():
    usage = count_usage(LANGUAGES.values(), TOKENIZER)
    used = rarest(usage, TOKENIZER, 10**6)
    assert sorted([*used, *never_used(usage, TOKENIZER)]) == text_ids(TOKENIZER)
    counts = [usage.counts[id] for id in used]
    assert counts == sorted(counts) and counts[0] > 0


def test_ties_among_the_rarest_prefer_the_newest_token():
    counts_V = np.zeros(TOKENIZER.vocab_size, np.int64)
    counts_V[[300, 400, 500]] = 2, 1, 1
    assert rarest(Usage(counts_V, 1, 9), TOKENIZER, 2) == [500, 400]


def test_longest_first_up_to_the_requested_number():
    lengths = [len(TOKENIZER.token_bytes(id)) for id in longest(TOKENIZER, 899)]
    assert lengths == sorted(lengths, reverse=True) and len(lengths) == 899
    digits = [TOKENIZER.ranks[b"%d" % digit] for digit in range(5)]
    assert longest(TOKENIZER, 5, lambda token: token.isdigit()) == digits
