"""A tokenizer as a folder: tokenizer.tiktoken and meta.json, which are read back, and tokenizer.json for others."""

import base64
import itertools
import json
from pathlib import Path

from lm.errors import InputError
from lm.tokenizer.encoding import Tokenizer

RANKS, META, HUGGING_FACE = "tokenizer.tiktoken", "meta.json", "tokenizer.json"


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the three files into `folder`, made if need be; meta.json, without which load() refuses, last."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokenizer.tokens)]
    write(folder / RANKS, "".join(lines))
    write(folder / HUGGING_FACE, json.dumps(hugging_face(tokenizer), ensure_ascii=False, indent=1) + "\n")
    meta = {
        "pattern": tokenizer.pattern,
        "special_tokens": list(tokenizer.special_tokens),
        "vocabulary_size": tokenizer.vocabulary_size,
        "documents": tokenizer.documents,
        "characters": tokenizer.characters,
        "fingerprint": tokenizer.fingerprint,
    }
    write(folder / META, json.dumps(meta, indent=1) + "\n")


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def load(folder: Path) -> Tokenizer:
    """The tokenizer that save() wrote into `folder`.

    Raises InputError when a file is missing or malformed, or when the fingerprint of what it holds is not the one
    that was written.
    """
    for name in (META, RANKS):
        if not (folder / name).is_file():
            raise InputError(
                f"There is no tokenizer in {folder}: {name} is missing. Make one: python -m launch.train_tokenizer"
            )
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        tokenizer = Tokenizer(
            meta["pattern"],
            read_ranks(folder / RANKS),
            tuple(meta["special_tokens"]),
            int(meta["documents"]),
            int(meta["characters"]),
        )
        stored = meta["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:  # JSON, UTF-8 and base64 errors are ValueErrors
        raise InputError(f"The tokenizer in {folder} is damaged: {type(error).__name__}: {error}. {REMEDY}") from error
    if tokenizer.fingerprint != stored:
        raise InputError(
            f"The tokenizer in {folder} is not the one that was saved: its fingerprint is {tokenizer.fingerprint}, "
            f"but {META} says {stored}. {REMEDY}"
        )
    return tokenizer


REMEDY = "Delete the folder and make it again: python -m launch.train_tokenizer"


def read_ranks(path: Path) -> tuple[bytes, ...]:
    """Tokens by rank from tiktoken's format, one "<base64 of the bytes> <rank>" a line. Raises ValueError."""
    tokens = []
    for number, line in enumerate(path.read_text(encoding="ascii").removesuffix("\n").split("\n")):
        encoded, rank = line.split(" ")
        if int(rank) != number:
            raise ValueError(f"line {number + 1} of {path.name} has rank {rank}, not {number}")
        tokens.append(base64.b64decode(encoded, validate=True))
        if base64.b64encode(tokens[-1]).decode() != encoded:
            raise ValueError(f"line {number + 1} of {path.name} is no base64: {encoded}")
    return tuple(tokens)


def hugging_face(tokenizer: Tokenizer) -> dict:
    """The contents of tokenizer.json, as Hugging Face's tokenizers library reads it.

    It gives the same ids, save that by default that library takes a special token's name in a text for the token
    (`encode_special_tokens = True` turns this off), and for white space longer than LONGEST_RUN, which it does not cut.
    """
    letters = byte_letters()
    spell = lambda token: "".join(letters[byte] for byte in token)
    ranks = {token: rank for rank, token in enumerate(tokenizer.tokens)}
    merges = [merged_from(token, ranks) for token in tokenizer.tokens if len(token) > 1]
    special = [
        {"id": len(ranks) + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, name in enumerate(tokenizer.special_tokens)
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
