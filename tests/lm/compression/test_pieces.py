"""Splitting bytes into text and raw bytes, and joining them, is lossless."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.compression.pieces import SMALLEST, broken_bytes, cut_pieces, joined
from lm.tokenizer.characters import CharacterTokenizer
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, BYTE, CONTROL, UNKNOWN, Piece, SentencePieceModel, write_model
from tests.corpus import texts
from tests.hostile_files import KINDS, SINGLE, hostile_file
from tests.lm.compression.models import tokenizer

PROSE = texts(2)[0].encode()


@pytest.fixture(scope="module")
def characters():
    return CharacterTokenizer("".join(sorted({*"".join(texts(5)), "\n"})))


def cut_and_join(data: bytes, by) -> bytes:
    pieces = cut_pieces(data, by)
    return b"".join(joined([by.decode_bytes(pieces.tokens)], [pieces.raw], pieces.lengths))


@pytest.mark.parametrize("number", range(len(SINGLE) + 2 * len(KINDS)))
def test_pieces_are_lossless(number, characters):
    _, data = hostile_file(number, 6000)
    for by in (tokenizer(), characters):
        assert cut_and_join(data, by) == data


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=40) | st.text(max_size=40).map(str.encode)).map(b"".join))
def test_any_bytes_are_lossless(data):
    assert cut_and_join(data, tokenizer()) == data


def test_text_becomes_tokens_and_noise_raw_bytes():
    noise = KINDS["noise"](random.Random(0), 5000)
    pieces = cut_pieces(PROSE + noise + PROSE, tokenizer())
    assert len(pieces.lengths) == 3
    assert pieces.lengths[0] == pytest.approx(len(PROSE), abs=SMALLEST)
    assert pieces.lengths[1] == pytest.approx(len(noise), abs=2 * SMALLEST)


def test_a_stray_byte_in_a_text_becomes_a_token():
    data = PROSE[:500] + b"\xe9" + PROSE[500:]
    pieces = cut_pieces(data, tokenizer())
    assert (pieces.raw, pieces.lengths) == (b"", [len(data)])


def test_a_missing_character_makes_only_nearby_text_raw(characters):
    pieces = cut_pieces(PROSE + "漢".encode() + PROSE, characters)
    assert 3 <= len(pieces.raw) <= SMALLEST + 3 and "漢".encode() in pieces.raw


def test_tokenizers_that_prepend_a_space_are_supported():
    """As Llama 2's does: only bytes before the first space, or near bytes that are not text, are raw."""
    letters = [Piece("<unk>", 0.0, UNKNOWN), Piece("<s>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL)]
    letters += [Piece(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    letters += [Piece(letter, -1.0) for letter in ("\u2581", *"abcdefghijklmnopqrstuvwxyz")]
    model = SentencePieceModel(tuple(letters), BPE, True, False, b"", 0, 1, 2)
    by = SentencePieceTokenizer.from_model(write_model(model))
    assert by.decode(by.encode("a")) == " a"
    assert cut_and_join(PROSE, by) == PROSE
    assert len(cut_pieces(PROSE, by).raw) == PROSE.index(b" ")
    data = PROSE + b"\xff" * 40 + PROSE
    assert cut_and_join(data, by) == data
    assert len(cut_pieces(data, by).raw) < 3 * SMALLEST
    assert cut_and_join(b"nonsense", by) == b"nonsense" and cut_and_join(b"", by) == b""


def test_broken_bytes_are_located():
    assert broken_bytes("aé漢".encode()) == []
    assert broken_bytes(b"a\xffb\xe6\xbcc\xc3") == [1, 3, 4, 6]


def test_inconsistent_lengths_are_rejected():
    for text, raw in (([b"abc"], [b"xy"]), ([b"a", b"", b"bc"], [b"x", b"y"])):
        assert b"".join(joined(text, raw, [1, 2, 2])) == b"axybc"
    for lengths, said in (([1, 2, 1], "shorter than the data"), ([1, 3, 2], "pieces that are 1 bytes longer")):
        with pytest.raises(ValueError, match=said):
            _ = [*joined([b"abc"], [b"xy"], lengths)]
