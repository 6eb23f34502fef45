"""Our export and Hugging Face's library give the same ids on every text."""

import json
import pickle
from dataclasses import replace

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from lm.config import TokenizerConfig
from lm.errors import UsageError
from lm.formats.hugging_face.tokenizer_files import sentencepiece_json, write_tokenizer
from lm.tokenizer import load, save, train_tokenizer
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from lm.tokenizer.hugging_face.writing import BYTE_LETTERS
from lm.tokenizer.published import load_published
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from tests.adversarial import GENERATORS
from tests.run_files import LICENSE

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's 12,345 o'clock, isn't it?\n\n  Naïve café — 東京 🙂\t",

    "def f(x):\n    return x ** 2  # squares\n", "ÄÖÜ ß ﬁ ½ ² ٣ ｆｕｌｌ", " leading", "trailing ",
    "\r\n\r\n", "a" * 80,
    "\u200b\ufeff\u0301e\u0301", "\U0001f469\u200d\U0001f4bb \U000e0041",
    "<|im_start|> and <s> in a text", "",
    *(make(150) for make in GENERATORS.values()),
]  # fmt: skip
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<reserved_{n}>" for n in range(14))]


def smollm2_like() -> tokenizers.Tokenizer:
    """Special tokens first, then the bytes; digits are split individually."""
    made = tokenizers.Tokenizer(models.BPE())
    cuts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    made.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


def llama2_like() -> tokenizers.Tokenizer:
    """Characters with byte fallback, blanks as U+2581, one before every text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijklmnopqrstuvwxyz.,"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("i", "n")]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    made = tokenizers.Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return made


LACKED = (0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100))
"""The 21 bytes without a token in SmolLM2's published vocabulary."""


def lacking_bytes() -> bytes:
    """A tokenizer.json of smollm2_like without the tokens of LACKED."""
    contents = json.loads(smollm2_like().to_str())
    letters = [BYTE_LETTERS[byte] for byte in LACKED]
    kept = [token for token in contents["model"]["vocab"] if not set(token) & set(letters)]
    contents["model"]["vocab"] = {token: id for id, token in enumerate(kept)}
    contents["model"]["merges"] = [pair for pair in contents["model"]["merges"] if not set("".join(pair)) & {*letters}]
    return json.dumps(contents).encode()


MADE = {"SmolLM2": (smollm2_like, "<|endoftext|>", ""), "Llama 2": (llama2_like, "<s>", " ")}


@pytest.fixture(scope="module", params=MADE)
def made(request):
    """(the library's tokenizer, ours from its file, the prefix of every text)."""
    make, start, before = MADE[request.param]
    library = make()
    ours = LibraryTokenizer.from_json(library.to_str().encode(), start)
    library.encode_special_tokens = True
    return library, ours, before


def test_ids_equal_the_librarys_and_bytes_round_trip(made):
    library, ours, before = made
    for text in TEXTS:
        ids = library.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == ids == ours.encode_batch([text])[0]
        assert ours.decode_bytes(ids) == (before * bool(text) + text).encode()
    assert ours.vocab_size == library.get_vocab_size()


def test_a_hugging_face_folder_is_loaded_by_a_tokenizer_that_supports_it(made, tmp_path):
    library, ours, _ = made
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": ours.start, "eos_token": ours.end}))
    assert load_published(str(tmp_path)).encode(TEXTS[0]) == ours.encode(TEXTS[0])


def test_a_vocabulary_that_lacks_bytes_rejects_only_texts_that_need_them(tmp_path):
    whole, ours = json.loads(smollm2_like().to_str()), LibraryTokenizer.from_json(lacking_bytes(), "<|endoftext|>")
    assert len(LACKED) == 21 and ours.missing_bytes == bytes(LACKED)
    assert len(json.loads(ours.contents)["model"]["vocab"]) <= len(whole["model"]["vocab"]) - 21
    save(ours, tmp_path / "saved")
    for tokenizer in (ours, load(tmp_path / "saved"), pickle.loads(pickle.dumps(ours))):
        for point in [*range(0xD800), *range(0xE000, 0x110000, 0x1001)]:
            text = f"a é {chr(point)}"
            if {*text.encode()} & {*LACKED}:
                with pytest.raises(UsageError, match=rf"^Character 4 of the text, .*\(U\+{point:04X}\)"):
                    tokenizer.encode(text)
            elif point < 0x3000:
                assert tokenizer.decode(tokenizer.encode(text)) == text
    for encode in (ours.encode, ours.encode_array, ours.prompt_ids, lambda text: ours.encode_batch(["a", text])):
        with pytest.raises(UsageError, match=r"'\\x1d' \(U\+001D\), needs the byte 0x1D, .* use a tokenizer that has"):
            encode("ok \x1d")
    with pytest.raises(UsageError, match=r"Character 0 .* needs the byte 0xF1"):
        ours.encode("<|im_start|>\U00040000", ["<|im_start|>"])
    ids = ours.encode("plain\x05")
    assert ours.decode_bytes([*ids, ours.bos_id]) == b"plain\x05<|endoftext|>"  # decoding needs no byte tokens


def test_a_text_is_rejected_by_its_bytes_after_normalization():
    contents = json.loads(lacking_bytes()) | {"normalizer": {"type": "NFC"}}
    ohm, omega = "\u2126", "\u03a9"  # the sign is normalized to the letter: bytes E2 84 A6 become CE A9
    letters = {BYTE_LETTERS[byte] for byte in ohm.encode()} - {BYTE_LETTERS[byte] for byte in omega.encode()}
    model = contents["model"]
    model["vocab"] = {token: id for token, id in model["vocab"].items() if not set(token) & letters}
    model["merges"] = [pair for pair in model["merges"] if not set("".join(pair)) & letters]
    ours = LibraryTokenizer.from_json(json.dumps(contents).encode(), "<|endoftext|>")
    assert {*ohm.encode()} <= {*ours.missing_bytes}
    assert ours.decode(ours.encode(ohm)) == omega
    with pytest.raises(UsageError, match="needs the byte 0xE2"):
        ours.encode("\u2127")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0}}, 'model.type is "WordPiece"'),
        ({"type": "Unigram", "unk_id": 0, "vocab": [["<s>", 0.0]]}, "only a byte-level vocabulary"),
        ({"type": "BPE", "vocab": {"a": 0}, "merges": []}, "only a byte-level vocabulary"),
        ({"type": "BPE", "vocab": {"a": 0}, "merges": [], "byte_fallback": True, "dropout": 0.1}, "dropout is 0.1"),
        ({"type": "BPE", "vocab": {}, "merges": [], "end_of_word_suffix": "</w>"}, 'end_of_word_suffix is "</w>"'),
    ],
)  # fmt: skip
def test_a_tokenizer_whose_tokens_lose_bytes_is_rejected_by_name(tmp_path, model, said):
    contents = {"model": model, "added_tokens": [], "pre_tokenizer": None, "normalizer": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(contents))
    with pytest.raises(UsageError, match=said):
        load_published(str(tmp_path))


@pytest.fixture(scope="module")
def trained():
    base = TokenizerConfig(vocab_size=420, split_pattern="gpt2", train_characters=100_000)
    kinds = {
        "bpe": base, "sentencepiece_bpe": replace(base, algorithm="sentencepiece_bpe"),
        "sentencepiece_unigram": replace(base, algorithm="sentencepiece_unigram"),
    }  # fmt: skip
    words = [LICENSE, *filter(None, TEXTS[:9] * 3)]
    return {name: train_tokenizer(words, config) for name, config in kinds.items()}


@pytest.mark.parametrize("name", ["bpe", "sentencepiece_bpe", "sentencepiece_unigram"])
def test_every_kind_is_exported_to_hugging_face_with_the_same_ids_after_bos(trained, tmp_path, name):
    ours = trained[name]
    write_tokenizer(tmp_path, ours, 128)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.encode_special_tokens = True
    for text in TEXTS[:11] if name == "sentencepiece_unigram" else TEXTS:  # it chooses another of equally likely splits
        assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text), text[:40]
        assert theirs.encode(text).ids == [ours.bos_id, *ours.encode(text)]
    assert theirs.decode(ours.encode(TEXTS[0])) == TEXTS[0]
    again = load_published(str(tmp_path))
    assert [again.encode(text) for text in TEXTS[:11]] == [ours.encode(text) for text in TEXTS[:11]]
    assert again.decode(again.encode(TEXTS[0])) == TEXTS[0] and again.bos_id == ours.bos_id
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["bos_token"] == config["eos_token"] == "<|endoftext|>" and config["model_max_length"] == 128


def test_a_sentencepiece_model_that_normalizes_has_no_tokenizer_json(trained):
    model = trained["sentencepiece_bpe"].model
    ours = SentencePieceTokenizer.from_model(model + b"\x1a\x02\x20\x01")  # the message again: remove_extra_whitespaces
    with pytest.raises(UsageError, match="remove_extra_whitespaces"):
        sentencepiece_json(ours)
