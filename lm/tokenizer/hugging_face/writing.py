"""Write a byte-level BPE as Hugging Face's tokenizer.json."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from lm.errors import UsageError

Merge = tuple[bytes, bytes]
"""Two tokens whose concatenation is a token."""


class BytePairs(Protocol):
    """Attributes of a tokenizer that are written."""

    @property
    def pattern(self) -> str: ...

    @property
    def tokens(self) -> tuple[bytes, ...]: ...

    @property
    def special_tokens(self) -> Mapping[str, int]: ...

    @property
    def vocab_size(self) -> int: ...


def write_hugging_face(tokenizer: BytePairs) -> bytes:
    """Return the bytes of a tokenizer.json. Raises UsageError if the name of a special token is also a token."""
    return (json.dumps(hugging_face(tokenizer), ensure_ascii=False, indent=1) + "\n").encode()


def hugging_face(tokenizer: BytePairs) -> dict:
    """Return the contents of a tokenizer.json for Hugging Face's tokenizers library. Its ids are the same, with two
    exceptions: by default that library encodes the name of a special token in a text as the token
    (`encode_special_tokens = True` disables this), and it does not divide long white space as `sections` does. Raises
    UsageError if a special token is also a token of the vocabulary."""
    spell = lambda token: "".join(BYTE_LETTERS[byte] for byte in token)
    ranks = {token: rank for rank, token in enumerate(tokenizer.tokens)}
    merges, whole_pieces = merges_of(ranks)
    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    if same := [name for name in tokenizer.special_tokens if name in vocabulary]:
        raise UsageError(
            f"tokenizer.special_tokens has {same[0]!r}, which is also token {vocabulary[same[0]]} of the vocabulary: "
            "Hugging Face's library could not distinguish them. Choose a name that no text contains, such as "
            "<|name|>."
        )
    if tokenizer.vocab_size > len(ranks) + len(tokenizer.special_tokens):
        # The library ignores "id" and numbers special tokens after the vocabulary, except those in it.
        vocabulary |= tokenizer.special_tokens
    merged = [[spell(left), spell(right)] for left, right in merges]
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}
    return tokenizer_json(
        bpe_model(vocabulary, merged, ignore_merges=whole_pieces), tokenizer.special_tokens,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]}, decoder=BYTE_LEVEL,
    )  # fmt: skip


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
"""The step of a tokenizer.json that writes bytes as BYTE_LETTERS."""


def tokenizer_json(model: Mapping[str, object], special: Mapping[str, int], **steps: object) -> dict:
    """Return the contents of a tokenizer.json. `special` maps names to ids; `steps` are fields such as pre_tokenizer
    and decoder, which are null if not given."""
    added = [
        {"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for name, id in sorted(special.items(), key=lambda item: item[1])
    ]  # fmt: skip
    plain = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": None,
    }  # fmt: skip
    return plain | steps | {"model": model}


def bpe_model(vocabulary: Mapping[str, int], merges: Sequence, **settings: object) -> dict:
    """Return the field "model" of a tokenizer.json for a BPE; `settings` replace the library's defaults."""
    plain = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
    }  # fmt: skip
    return plain | settings | {"vocab": vocabulary, "merges": merges}


PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
OTHERS = iter(range(0x100, 0x200))
BYTE_LETTERS = [chr(byte if byte in PRINTABLE else next(OTHERS)) for byte in range(256)]
"""A printable character for each byte: GPT-2's table, by which byte-level files write tokens. Bytes of printable
Latin-1 characters are written as these, the others, in order, as U+0100 onwards."""
BYTE_OF = {letter: byte for byte, letter in enumerate(BYTE_LETTERS)}


def spelled_bytes(letters: str) -> bytes:
    """Return the bytes that BYTE_LETTERS write as `letters`. Raises KeyError for another character."""
    return bytes(BYTE_OF[letter] for letter in letters)


def merged_from(token: bytes, ranks: Mapping[bytes, int]) -> Merge:
    """Return the two tokens whose merge gave `token`: the result of applying all earlier merges to its bytes. `ranks`
    maps tokens to their position in the order of merges. Raises ValueError if the result is not two tokens: the ranks
    are not those of a BPE."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(parts)]
        best = min(range(len(joined)), key=joined.__getitem__)
        if joined[best] >= ranks[token]:
            raise ValueError(f"token {ranks[token]}, {token!r}, is not a merge of two earlier tokens, but of {parts}")
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def merges_of(ranks: Mapping[bytes, int]) -> tuple[list[Merge], bool]:
    """Return (merges, whole_pieces) of a BPE with the same ids as `ranks`, {token: id}; whole_pieces is whether a piece
    of text that is a token must become that token without applying merges (ignore_merges).

    In a trained BPE, each token has one merge. Tokens that were added later may have none, like 678 of Llama 3's: then,
    as in its own tokenizer.json, every split of a token in two is a merge. If for neighbors a, b, c both a+b and b+c
    give the same token, ranks merge a and b, and these merges might not; this never happened in 7 million random
    vocabularies.
    """
    try:
        return [merged_from(token, ranks) for token in ranks if len(token) > 1], False
    except ValueError:
        return all_splits(ranks), True


def all_splits(ranks: Mapping[bytes, int]) -> list[Merge]:
    """Return every pair of tokens whose concatenation is a token, in the order of `ranks`, {token: id}; pairs of one
    token are ordered by their ids."""
    merges = []
    for token in ranks:
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        found = [(left, right) for left, right in halves if left in ranks and right in ranks]
        merges += sorted(found, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges
