"""Hugging Face's tokenizer.json: written for a BPE of ours, and read where it holds a byte-level BPE."""

import itertools
import json

from lm.tokenizer.encoding import BytePairTokenizer


def write_hugging_face(tokenizer: BytePairTokenizer) -> bytes:
    """The file tokenizer.json. Raises ValueError for ranks that are no BPE."""
    return (json.dumps(hugging_face(tokenizer), ensure_ascii=False, indent=1) + "\n").encode()


def hugging_face(tokenizer: BytePairTokenizer) -> dict:
    """The contents of tokenizer.json, as Hugging Face's tokenizers library reads it.

    It gives the same ids, save that by default that library takes a special token's name in a text for the token
    (`encode_special_tokens = True` turns this off), and for white space longer than LONGEST_RUN, which it does not cut.
    """
    letters = byte_letters()
    spell = lambda token: "".join(letters[byte] for byte in token)
    ranks = {token: rank for rank, token in enumerate(tokenizer.tokens)}
    merges = [merged_from(token, ranks) for token in tokenizer.tokens if len(token) > 1]
    special = [
        {"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for name, id in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spell(token): rank for token, rank in ranks.items()},
            "merges": [[spell(left), spell(right)] for left, right in merges],
        },
    }


def byte_letters() -> list[str]:
    """The printable character that stands for each byte in Hugging Face's byte-level files: GPT-2's table, in which
    printable Latin-1 characters stand for themselves and the other bytes, in order, for U+0100 onwards."""
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in itself else next(others)) for byte in range(256)]


def merged_from(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that were merged into `token`: what its bytes become under all merges before it.

    Raises ValueError when those leave other than two, that is, when the ranks are no BPE.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(parts)]
        best = min(range(len(joined)), key=joined.__getitem__)
        if joined[best] >= ranks[token]:
            raise ValueError(f"token {ranks[token]}, {token!r}, is no merge of two tokens before it, but of {parts}")
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]
