"""Parts of a tokenizer that other programs need: the vocabulary and merges of a byte-level BPE, and sentencepiece
models without steps that these programs lack."""

import json
from collections.abc import Collection
from typing import Any, NamedTuple

from lm.errors import UsageError
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import BytePairTokenizer
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from lm.tokenizer.hugging_face.reading import split_pattern
from lm.tokenizer.hugging_face.writing import hugging_face
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BYTE, KINDS, SentencePieceModel, read_model

DIGITS_ALONE = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
"""SmolLM2's split pattern: each digit is a piece, and GPT-2's pattern splits the rest."""
DIGITS_STEPS = (
    {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
)  # fmt: skip
"""The split of DIGITS_ALONE as two pre-tokenizer steps of a tokenizer.json."""


class ByteLevel(NamedTuple):
    """Split pattern, vocabulary and merges of a byte-level BPE."""

    pattern: str
    """Split pattern, in the syntax of fancy-regex."""
    vocabulary: dict[str, int]
    """{token: id} without the special tokens; each byte of a token is written as GPT-2's letter for it."""
    merges: list[tuple[str, str]]
    whole_pieces: bool
    """Whether a piece of text that is a token becomes that token without applying merges (ignore_merges)."""


def byte_level_of(tokenizer: Tokenizer) -> ByteLevel:
    """Return the parts of a byte-level BPE tokenizer. Raises UsageError if it is another kind of tokenizer, or has
    steps besides splitting and merging."""
    if isinstance(tokenizer, BytePairTokenizer):
        contents, pattern = hugging_face(tokenizer), tokenizer.pattern
    elif isinstance(tokenizer, LibraryTokenizer):
        contents = json.loads(tokenizer.contents)
        pattern = pattern_of(contents)
    else:
        raise UsageError(f"The tokenizer is {tokenizer.kind}, not byte-level BPE. Use --format hugging_face.")
    model, special = contents["model"], {*tokenizer.special_tokens}
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    vocabulary = {token: id for token, id in model["vocab"].items() if token not in special}
    return ByteLevel(pattern, vocabulary, [(left, right) for left, right in pairs], bool(model.get("ignore_merges")))


def pattern_of(contents: dict[str, Any]) -> str:
    """Return the split pattern in the contents of a tokenizer.json. Raises UsageError for other steps than a split."""
    if contents.get("normalizer") is not None:
        raise UsageError(
            f"The tokenizer normalizes text ({contents['normalizer']['type']}), which this format does not support. "
            "Use --format hugging_face."
        )
    if plain := [token["content"] for token in contents.get("added_tokens") or [] if not token["special"]]:
        raise UsageError(
            f"The tokenizer has {plain[0]!r}, which is removed from every text; this format does not support that. Use "
            "--format hugging_face."
        )
    steps = contents["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    found = [{name: step.get(name) for name in wanted} for step, wanted in zip(steps, DIGITS_STEPS, strict=False)]
    return DIGITS_ALONE if len(steps) == 2 and found == list(DIGITS_STEPS) else split_pattern(contents["pre_tokenizer"])


def supported_sentencepiece(
    tokenizer: SentencePieceTokenizer, program: str, remedy: str, kinds: Collection[int], pieces: Collection[int]
) -> SentencePieceModel:
    """Return the tokenizer's parsed model. Raises UsageError, with `program` and `remedy`, if the model's `kind` is not
    in `kinds`, a piece's `kind` not in `pieces`, or if the model lacks byte fallback or normalizes text."""
    model = read_model(tokenizer.model)
    found = {piece.kind for piece in model.pieces}
    for unsupported, what in (
        (model.kind not in kinds, f"is of the kind {KINDS.get(model.kind, model.kind)}"),
        (bool(model.charsmap), f"normalizes characters by a table of {len(model.charsmap)} bytes"),
        (model.shortens, "shortens runs of spaces (remove_extra_whitespaces)"),
        (BYTE not in found, "has no byte_fallback"),
        (not found <= {*pieces}, f"has pieces of the kinds {sorted(found)}, not only {sorted(pieces)}"),
    ):
        if unsupported:
            raise UsageError(f"The sentencepiece model {what}, which {program} does not support. {remedy}")
    return model
