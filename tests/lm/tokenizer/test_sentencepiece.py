"""sentencepiece: models trained here round-trip every text and are deterministic; other models keep sentencepiece's
ids."""

import functools
import io
import json
import random
from collections.abc import Iterable
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from lm.config import END_OF_TEXT, TokenizerConfig
from lm.errors import InputError, UsageError
from lm.tokenizer import load, save
from lm.tokenizer.sentencepiece import BLANK, LONGEST_SENTENCE, SentencePieceTokenizer, sentences, train_sentencepiece
from tests.damage import flips
from tests.run_files import LICENSE

PARTS = LICENSE.split("\n\n")
BPE, UNIGRAM = "sentencepiece_bpe", "sentencepiece_unigram"
ALGORITHMS = (BPE, UNIGRAM)


def make(
    algorithm: Literal["sentencepiece_bpe", "sentencepiece_unigram"],
    texts: Iterable[str] = PARTS,
    size: int = 500,
    characters: int = 10**7,
) -> SentencePieceTokenizer:
    return train_sentencepiece(texts, TokenizerConfig(size, "gpt2", characters, algorithm))


TRAINED = {algorithm: make(algorithm) for algorithm in ALGORITHMS}
both = pytest.mark.parametrize("tokenizer", TRAINED.values(), ids=TRAINED)


@functools.cache
def published(**options: Any) -> bytes:
    """A model as others train them: with Llama 2's options, except for the given ones."""
    model = io.BytesIO()
    llama: dict[str, Any] = {
        "model_type": "bpe", "vocab_size": 500, "byte_fallback": True, "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "split_digits": True, "minloglevel": 2,
        "user_defined_symbols": "<|user|>",
    }  # fmt: skip
    SentencePieceTrainer.train(sentence_iterator=iter(PARTS), model_writer=model, **llama | options)
    return model.getvalue()


texts = (
    st.text() | st.text(alphabet=f" {BLANK}\n\r\t\0ab<>1") | st.text(alphabet=st.sampled_from([*LICENSE[:400], "é"]))
)


@pytest.mark.fast_rows
@both
def test_every_character_round_trips(tokenizer):
    for first in range(0, 0x110000, 0x800):
        text = " ".join(f"{chr(c)}a{chr(c)}" for c in range(first, first + 0x800) if not 0xD800 <= c < 0xE000)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@both
def test_the_layout(tokenizer):
    assert (tokenizer.vocab_size, tokenizer.documents) == (500, len(PARTS))
    assert tokenizer.special_tokens == {"<unk>": 0, END_OF_TEXT: 1}
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {1})
    assert [tokenizer.token_bytes(id) for id in range(258)] == [
        b"<unk>", END_OF_TEXT.encode(), *(bytes([byte]) for byte in range(256))
    ]  # fmt: skip


@pytest.mark.fast_rows
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_order_of_the_texts_changes_nothing(algorithm):
    shuffled = [*PARTS, "", "x" * 3 * LONGEST_SENTENCE]
    model = make(algorithm, shuffled).model
    for seed in range(2):
        random.Random(seed).shuffle(shuffled)
        assert make(algorithm, shuffled).model == model


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_texts_with_reserved_characters_are_used(algorithm):
    """sentencepiece would silently drop sentences with such characters, and long ones."""
    plain = make(algorithm, PARTS * 2)
    for odd in "\0\u2581\u2585":
        assert make(algorithm, [f"{part}{odd}{part}" for part in PARTS]).model == plain.model


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_names_of_symbols_in_the_texts_are_text(algorithm):
    odd = f"<unk> <s> </s> <0x41> {END_OF_TEXT} \t\ufffd\r\n" * 2000
    tokenizer = make(algorithm, [LICENSE, odd])
    assert tokenizer.decode(tokenizer.encode(odd)) == odd


def test_sentences_cover_the_text_in_parts_of_bounded_length():
    long = "b" * (2 * LONGEST_SENTENCE + 5)
    for text in (LICENSE, long, f"{long} {long}\n{long}", " " * 10_000, "\n" * 10_000, "", "a"):
        parts = list(sentences(text))
        assert "".join(parts) == text
        assert all(0 < len(part) <= LONGEST_SENTENCE for part in parts)
    assert [part[-1] for part in sentences("a line\n" * 1000)] == ["\n", "\n"]
    assert [part[0] for part in sentences("a line " * 1000)] == ["a", " "]


def test_the_bound_on_characters_is_kept():
    tokenizer = make(BPE, [LICENSE[:3000], LICENSE], 320, characters=5000)
    assert (tokenizer.documents, tokenizer.characters) == (2, 5000)
    assert tokenizer.model == make(BPE, [LICENSE[:3000], LICENSE[:2000]], 320).model


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_impossible_size_is_rejected_with_the_remedy(algorithm, capfd):
    with pytest.raises(UsageError, match=r"vocab_size = 100 is too small .* (3\d\d) symbols. Set vocab_size to \1 "):
        make(algorithm, size=100)
    with pytest.raises(UsageError, match=r"vocab_size = 99999 is too large .* (\d+) pieces. Set vocab_size to \1 "):
        make(algorithm, size=99_999)
    for nothing in ([], [""], ["\0"]):
        said = r"\d documents without text" if not any(nothing) else r"500 on 1 characters in 1 documents"
        with pytest.raises(UsageError, match=said):
            make(algorithm, nothing)
    make(algorithm, size=340)
    assert capfd.readouterr() == ("", "")  # no log


def test_an_error_in_the_texts_is_raised_unchanged():
    def broken():
        yield LICENSE
        raise InputError("a damaged file")

    with pytest.raises(InputError, match="a damaged file"):
        make(BPE, broken())


@both
def test_sentencepiece_reads_a_saved_tokenizer(tokenizer, tmp_path):
    save(tokenizer, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meta.json", "tokenizer.model"]
    theirs = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert theirs.encode(LICENSE) == tokenizer.encode(LICENSE)
    assert theirs.decode(tokenizer.encode(LICENSE)) == LICENSE


def test_a_changed_folder_is_rejected(tmp_path):
    save(TRAINED[BPE], tmp_path)
    meta, model = tmp_path / "meta.json", tmp_path / "tokenizer.model"
    original = meta.read_text()
    meta.write_text(json.dumps(json.loads(original) | {"exact": False}))
    with pytest.raises(InputError, match=f"but meta.json says {TRAINED[BPE].fingerprint}"):
        load(tmp_path)
    meta.write_text(original.replace('"exact"', '"exakt"'))
    with pytest.raises(InputError, match="is damaged"):
        load(tmp_path)
    meta.write_text(original)
    for _ in flips([model], 200):
        with pytest.raises(InputError, match=r"is damaged|but meta.json says|marks neither"):
            load(tmp_path)
    model.write_bytes(b"")
    with pytest.raises(InputError, match="is damaged"):
        load(tmp_path)


LLAMA = SentencePieceTokenizer.from_model(published())
LLAMA_ITSELF = SentencePieceProcessor(model_proto=published())


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_a_llama_like_model_gives_the_ids_of_sentencepiece(text):
    ids = LLAMA.encode(text)
    assert ids == LLAMA_ITSELF.encode(text)
    # The model prepends a blank to the text, and decodes U+2581 as one.
    assert LLAMA.decode(ids) == (f" {text}" if text else "").replace(BLANK, " ")
    assert LLAMA.decode(ids).removeprefix(" ") == LLAMA_ITSELF.decode(ids)


def test_the_layout_of_llama():
    assert LLAMA.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert (LLAMA.bos_id, LLAMA.eos_ids) == (1, {1, 2})
    (the,) = LLAMA.encode("the")
    assert LLAMA.token_bytes(the) == b" the"
    assert LLAMA.token_bytes(LLAMA_ITSELF.piece_to_id("<0x41>")) == b"A"
    assert LLAMA.token_bytes(LLAMA.encode("a<|user|>")[-1]) == b"<|user|>"
    assert LLAMA.encode("</s>x<s>", {"<s>"}) == [*LLAMA.encode("</s>x"), 1]
    exact = SentencePieceTokenizer.from_model(published(), exact=True)
    assert exact.fingerprint != LLAMA.fingerprint


def test_a_normalizing_model_gives_the_ids_of_sentencepiece():
    model = published(
        model_type="unigram",
        vocab_size=400,
        normalization_rule_name="nmt_nfkc_cf",
        remove_extra_whitespaces=True,
        byte_fallback=False,
    )
    tokenizer, theirs = SentencePieceTokenizer.from_model(model), SentencePieceProcessor(model_proto=model)
    for text in (LICENSE, "  ＦＵＬＬ  Width\u2581\n", "a\U0001f600b", ""):
        assert tokenizer.encode(text) == theirs.encode(text)
    assert tokenizer.decode(tokenizer.encode("  ＯＲ  The ")) == " or the"
    assert "<unk>" not in tokenizer.special_tokens  # since texts encode to it
    assert tokenizer.decode(tokenizer.encode("a\U0001f600b")) == " a \u2047 b"
    with pytest.raises(ValueError, match="cannot be lossless"):
        SentencePieceTokenizer.from_model(model, exact=True)


def test_documents_need_a_bos_token():
    tokenizer = SentencePieceTokenizer.from_model(published(bos_id=-1))
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (2, {2})
    with pytest.raises(UsageError, match=r"bos_id and eos_id are -1.*--bos_id=1"):
        SentencePieceTokenizer.from_model(published(bos_id=-1, eos_id=-1))


@pytest.mark.parametrize("data", [b"", b"no model", LICENSE.encode(), published()[:1000]])
def test_other_bytes_are_not_a_model(data):
    with pytest.raises(ValueError, match=f"{len(data)} bytes are not a sentencepiece model"):
        SentencePieceTokenizer.from_model(data)
