"""Write tokenizer.json of a standalone folder: a vocabulary in a plain format that model.py and people can read."""

import functools
import json
import re
from typing import Any

from lm.errors import UsageError
from lm.formats.byte_level import byte_level_of, supported_sentencepiece
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.characters import CharacterTokenizer
from lm.tokenizer.encoding import BytePairTokenizer
from lm.tokenizer.fast import character_ranges
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from lm.tokenizer.hugging_face.reading import check_merges, means_the_same, ranks_of
from lm.tokenizer.patterns import SPLIT_PATTERNS
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, BYTE, CONTROL, NORMAL, UNIGRAM, UNKNOWN, read_model

CLASS = re.compile(r"\\p\{\w+\}|\\[sS]")
"""Matches character classes of a split pattern that Python's `re` lacks or interprets differently."""


def features_of(tokenizer: Tokenizer) -> frozenset[str]:
    """Return the features that model.py needs for the tokenizer, such as "bpe": names in the lines "#: if NAME" of
    model_template.txt. Raises UsageError for an unsupported tokenizer."""
    shared = {
        name for name, present in (("headed", tokenizer.add_bos), ("lacking", tokenizer.missing_bytes)) if present
    }
    if isinstance(tokenizer, BytePairTokenizer):
        return frozenset({"bpe", *shared})
    if isinstance(tokenizer, LibraryTokenizer):
        # model.py applies merges in the order of token ids.
        found = byte_level_of(tokenizer)
        ordered = sorted(found.vocabulary, key=found.vocabulary.__getitem__)
        ranks = ranks_of({token: rank for rank, token in enumerate(ordered)}, ())
        check_merges(found.merges, ranks, found.whole_pieces)
        return frozenset({"bpe", *shared})
    if isinstance(tokenizer, CharacterTokenizer):
        return frozenset({"characters", *shared})
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise UsageError(
            f"The tokenizer is of the kind {tokenizer.kind}, but standalone folders support bpe, sentencepiece and "
            "characters. Use --format hugging_face."
        )
    remedy, pieces = "Use --format hugging_face.", (NORMAL, UNKNOWN, CONTROL, BYTE)
    model = supported_sentencepiece(tokenizer, "a standalone folder", remedy, (BPE, UNIGRAM), pieces)
    named = {"exact": tokenizer.exact, "unigram": model.kind == UNIGRAM, "dummy_prefix": model.dummy_prefix}
    return frozenset({"sentencepiece", *shared, *(name for name, present in named.items() if present)})


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """Return the contents of tokenizer.json. Raises UsageError for an unsupported tokenizer."""
    features_of(tokenizer)
    stored: dict[str, Any] = {
        "begin": tokenizer.bos_id, "ends": sorted(tokenizer.eos_ids), "special": dict(tokenizer.special_tokens)
    }  # fmt: skip
    if isinstance(tokenizer, BytePairTokenizer | LibraryTokenizer):
        stored["split"], stored["classes"] = python_pattern(byte_level_of(tokenizer).pattern)
    if isinstance(tokenizer, SentencePieceTokenizer):
        pieces = read_model(tokenizer.model).pieces
        places = {piece.text: id for id, piece in enumerate(pieces)}
        stored["bytes"] = [places[f"<0x{byte:02X}>"] for byte in range(256)]
        stored["pieces"] = {piece.text: [id, piece.score] for id, piece in enumerate(pieces) if piece.kind == NORMAL}
    tokens = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    is_text = lambda token: token == token.decode(errors="ignore").encode()
    stored["tokens"] = [token.decode() if is_text(token) else list(token) for token in tokens]
    # One line per token or piece, so that people can read it.
    parts = [f'"{name}": {lines(value)}' for name, value in stored.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def lines(value: object) -> str:
    """Format the value as JSON, with one token or piece per line."""
    plain = lambda one: json.dumps(one, ensure_ascii=False)
    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f" {plain(name)}: {plain(one)}" for name, one in value.items()) + "\n}"
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return "[\n" + ",\n".join(f" {plain(one)}" for one in value) + "\n]"
    return plain(value)


def python_pattern(pattern: str) -> tuple[str, dict[str, str]]:
    r"""Translate a split pattern to Python's `re`. Return (expression, {class such as "\p{L}": its character ranges}).

    In the expression each class is written by its name between brackets: replace the names by the ranges before
    compiling. The ranges are determined with tiktoken, so that they are the same in every version of Python. Raises
    UsageError for a pattern that Python may interpret differently.
    """
    if pattern not in SPLIT_PATTERNS.values() and not means_the_same(pattern):
        raise UsageError(
            f"The split pattern {pattern!r} is none of {', '.join(SPLIT_PATTERNS)}, and Python's re may read it "
            "differently: only characters, sets, \\s, \\S, \\p, look-ahead and plain repetition are the same in "
            "both. Use --format hugging_face."
        )
    written, classes, inside = "", {}, False
    for part in re.split(rf"({CLASS.pattern}|\\.|[\[\]])", pattern):
        if part in ("[", "]"):
            inside = part == "["
        if not CLASS.fullmatch(part):
            written += part
            continue
        if part == "\\S" and inside:
            raise UsageError(f"The split pattern {pattern!r} has \\S between brackets. Use --format hugging_face.")
        name = "\\s" if part == "\\S" else part
        classes[name] = class_members(name)
        written += name if inside else f"[^{name}]" if part == "\\S" else f"[{name}]"
    try:
        filled = written
        for name, members in classes.items():
            filled = filled.replace(name, members)
        re.compile(filled)
    except re.error as error:
        raise UsageError(
            f"Python's re cannot compile the split pattern {pattern!r}: {error}. Use --format hugging_face."
        ) from error
    return written, classes


@functools.cache
def class_members(name: str) -> str:
    r"""Return the characters that a class such as \p{L} or \s matches, as ranges to write between brackets."""
    import tiktoken

    single = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("class", pat_str=name, mergeable_ranks=single, special_tokens={})
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    found = bytes(encoding.encode_ordinary("".join(map(chr, points)))).decode()
    return character_ranges(found, escaped)


def escaped(character: str) -> str:
    r"""Return a character for use in a regular expression: an ASCII letter or digit as it is, any other as \u0000 or
    \U00000000."""
    if character.isascii() and character.isalnum():
        return character
    return f"\\u{ord(character):04x}" if character < "\U00010000" else f"\\U{ord(character):08x}"
