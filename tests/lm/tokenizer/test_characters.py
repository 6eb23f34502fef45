"""Character tokenizer: ids of the classic experiments, exact round trips, and unknown characters are named."""

import json
from pathlib import Path

import pytest

from lm.config import TokenizerConfig
from lm.errors import InputError, UsageError
from lm.tokenizer import load, save, train_tokenizer

SHAKESPEARE = Path(__file__).parents[4] / "shared/data/text/tinyshakespeare.txt"


def make(texts, size, characters=10**7, **others):
    return train_tokenizer(texts, TokenizerConfig(size, "gpt2", characters, "characters", **others))


def test_ids_are_in_the_order_of_code_points_and_a_newline_is_bos():
    tokenizer = make(["é€a\U0001f600b", "ba"], 6)
    assert tokenizer.symbols == "\nabé€\U0001f600"
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.special_tokens) == (0, frozenset(), {})
    assert (tokenizer.vocab_size, tokenizer.documents, tokenizer.characters) == (6, 2, 7)
    assert make(["\tba\n"], 4).bos_id == 1
    assert tokenizer == make(["b\U0001f600€", "aéab"], 6)


def test_an_unknown_character_is_named_with_the_remedy():
    with pytest.raises(InputError, match=r"'é' \(U\+00E9\) is not one of the 3 of this vocabulary. .*train_characters"):
        make(["ab"], 3).encode("abé")
    with pytest.raises(InputError, match=r"U\+FFFD"):
        make(["ab"], 3).encode("a\ud800")
    assert make(["a\ud800"], 3).encode("\ud800a\ufffd") == [2, 1, 2]


def test_the_vocabulary_size_must_equal_the_number_of_characters():
    with pytest.raises(
        UsageError, match=r"is 5, but 2 characters .* 3 different ones.*Set tokenizer.vocab_size to 3, "
    ):
        make(["ab"], 5)
    assert make(["abcdef"], 3, characters=2).symbols == "\nab"
    assert make(["ab"], 5, allow_fewer=True).symbols == "\nab"
    with pytest.raises(UsageError, match=r"is 2, but .* have 3 different ones"):
        make(["ab"], 2, allow_fewer=True)


@pytest.mark.parametrize("symbols", ["\nacb", "\naa", "ab", "\na\ud800", "", 3, ["\n", "a"]])
def test_damage_is_an_input_error(tmp_path, symbols):
    save(make(["ab"], 3), tmp_path)
    (tmp_path / "characters.json").write_text(json.dumps(symbols))
    with pytest.raises(InputError, match="is damaged"):
        load(tmp_path)


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="needs ../shared/data/text")
def test_the_classic_ids_of_tinyshakespeare():
    """nanoGPT's shakespeare_char: 65 symbols; its first 90 % are 1,003,854 tokens."""
    text = SHAKESPEARE.read_text(encoding="utf-8")
    tokenizer = make([text], 65)
    assert tokenizer.symbols == "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert tokenizer.encode("hii there") == [46, 47, 47, 1, 58, 46, 43, 56, 43]
    assert tokenizer.encode(text)[:15] == [18, 47, 56, 57, 58, 1, 15, 47, 58, 47, 64, 43, 52, 10, 0]
    assert len(tokenizer.encode(text[: int(len(text) * 0.9)])) == 1_003_854
    with pytest.raises(UsageError, match=r"Set tokenizer\.vocab_size to 65"):
        make([text], 64)
