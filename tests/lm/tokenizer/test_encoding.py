"""Tokenizer: texts and bytes round-trip, special names are plain text, the fingerprint covers everything."""

from dataclasses import replace

import pytest

from lm.config import END_OF_TEXT, TokenizerConfig
from lm.tokenizer import BytePairTokenizer, train_bpe
from lm.tokenizer.encoding import LONGEST_RUN, numbered, sections
from tests.run_files import LICENSE

TOKENIZER = train_bpe([LICENSE], TokenizerConfig(500, "cl100k", 10**7))


def test_the_fingerprint_covers_everything_that_determines_ids():
    tokens = list(TOKENIZER.tokens)
    tokens[300], tokens[301] = tokens[301], tokens[300]
    others = [
        replace(TOKENIZER, tokens=tuple(tokens)),
        replace(TOKENIZER, tokens=TOKENIZER.tokens[:-1]),
        replace(TOKENIZER, pattern=TOKENIZER.pattern + "|x"),
        replace(TOKENIZER, special_tokens=numbered(tokens, (END_OF_TEXT, "<|x|>"))),
        replace(TOKENIZER, special_tokens=numbered(tokens, ("<|x|>", END_OF_TEXT))),
        replace(TOKENIZER, special_tokens={END_OF_TEXT: len(tokens) + 1}),
        replace(TOKENIZER, special_tokens=numbered(tokens, (END_OF_TEXT, "<|x|>")), start="<|x|>"),
        replace(TOKENIZER, special_tokens=numbered(tokens, (END_OF_TEXT, "<|x|>")), end="<|x|>"),
    ]
    assert len({TOKENIZER.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1
    assert replace(TOKENIZER, documents=7).fingerprint == TOKENIZER.fingerprint


def test_vocabularies_that_cannot_encode_all_bytes_are_rejected():
    with pytest.raises(ValueError, match="1 single bytes are missing"):
        BytePairTokenizer(TOKENIZER.pattern, TOKENIZER.tokens[1:], special_tokens=TOKENIZER.special_tokens)
    with pytest.raises(ValueError, match="1 tokens occur twice"):
        BytePairTokenizer(TOKENIZER.pattern, (*TOKENIZER.tokens, b"a"), special_tokens=TOKENIZER.special_tokens)
    for special in ({END_OF_TEXT: 300}, {END_OF_TEXT: 499, "<|x|>": 499}):
        with pytest.raises(ValueError, match="share ids"):
            replace(TOKENIZER, special_tokens=special)
    with pytest.raises(ValueError, match="special tokens are"):
        replace(TOKENIZER, special_tokens={"<|x|>": 499})


def test_ids_between_special_tokens_decode_to_nothing():
    gap = replace(TOKENIZER, special_tokens={END_OF_TEXT: 505, "<|x|>": 501})
    assert (gap.vocab_size, gap.bos_id) == (506, 505)
    assert [gap.token_bytes(id) for id in (499, 501, 505)] == [b"", b"<|x|>", END_OF_TEXT.encode()]
    with pytest.raises(ValueError, match="506 is outside the vocabulary of 506"):
        gap.token_bytes(506)


def test_only_long_runs_are_cut_into_sections():
    text = "a " + " " * (2 * LONGEST_RUN) + "b" * (2 * LONGEST_RUN) + "\n" * LONGEST_RUN
    parts = list(sections(text))
    assert "".join(parts) == text
    assert [len(part) for part in parts] == [1 + LONGEST_RUN, LONGEST_RUN, 1 + 3 * LONGEST_RUN]
    assert list(sections("")) == [""]


def test_the_longer_of_two_special_names_with_a_common_prefix_wins():
    names = ("<|a|>", END_OF_TEXT, "<|a|>b")
    tokenizer = replace(TOKENIZER, special_tokens=numbered(TOKENIZER.tokens, names))
    first, _, longer = (tokenizer.special_tokens[name] for name in names)
    x, y = (tokenizer.encode(letter)[0] for letter in "xy")
    for names in (["<|a|>b"], ["<|a|>", "<|a|>b"]):
        assert tokenizer.encode("x<|a|>by", names) == [x, longer, y]
    assert tokenizer.encode("x<|a|>by", ["<|a|>"]) == [x, first, *tokenizer.encode("by")]
